"""Measures of uncertainty, against values by hand and by sampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg_jax.metrics import uncertainty
from lungseg_jax.metrics.uncertainty import (
    CATCH,
    auroc,
    disagreement,
    entropy,
    expected_iou,
    mutual_information,
    review_threshold,
    risk_coverage,
)

PROBABILITY = st.floats(0, 1, width=32)


def test_entropy_in_bits():
    p = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]], np.float32)
    quarter = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    np.testing.assert_allclose(entropy(p), [[0, quarter, 1, quarter, 0]], atol=1e-6)
    assert entropy(p).dtype == np.float32 and entropy(p)[0, 0] == entropy(p)[0, 4] == 0
    assert not np.signbit(entropy(p)).any()  # it would be printed as "-0.000"


def test_mutual_information_measures_disagreement_only():
    opposed = np.array([[[0.0]], [[1.0]]], np.float32)  # each certain, of the opposite
    unsure = np.array([[[0.5]], [[0.5]]], np.float32)
    assert mutual_information(opposed) == pytest.approx(1.0)
    apart = np.array([[[0.25]], [[0.75]]], np.float32)  # 1 - H(0.25)
    assert mutual_information(apart) == pytest.approx(0.1887219, abs=1e-6)
    assert mutual_information(unsure) == 0.0
    assert mutual_information(unsure[:1]) == np.zeros((1, 1))
    assert mutual_information(np.float32([[[0.3]]])) == 0  # one member


@given(arrays(np.float32, (3, 2, 2), elements=PROBABILITY))
def test_mutual_information_is_part_of_the_entropy(members):
    information = mutual_information(members)
    assert (information >= 0).all()
    assert (information <= entropy(members.mean(axis=0)) + 1e-5).all()


def test_expected_iou_is_near_the_mean_over_sampled_truths():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 32, columns - 32) - 20
    probability = (1 / (1 + np.exp(distance / 1.5))).astype(np.float32)
    mask = probability > 0.5
    sampled = rng.random((300, 64, 64)) < probability
    ious = (sampled & mask).sum((1, 2)) / (sampled | mask).sum((1, 2))
    assert expected_iou(probability, mask) == pytest.approx(ious.mean(), abs=1e-3)


@pytest.mark.parametrize(
    "probability,mask,expected",
    [
        ([[1.0, 0.0]], [[1, 0]], 1.0),
        ([[0.5, 0.5]], [[1, 0]], 1 / 3),  # 0.5 of 1.5
        ([[0.0, 0.0]], [[0, 0]], 1.0),  # certainly no lung
        ([[0.4, 0.1]], [[0, 0]], 0.6),
        ([[0.0, 0.0]], [[1, 1]], 0.0),
    ],
)
def test_expected_iou_by_hand(probability, mask, expected):
    found = expected_iou(np.array(probability, np.float32), np.array(mask, bool))
    assert found == pytest.approx(expected)


@given(
    arrays(np.float32, (3, 4), elements=PROBABILITY),
    arrays(bool, (3, 4)),
)
def test_expected_iou_is_between_0_and_1(probability, mask):
    assert 0 <= expected_iou(probability, mask) <= 1  # also rules out NaN


@pytest.mark.parametrize(
    "masks,expected",
    [
        ([[[1, 1, 0, 0]], [[1, 1, 0, 0]]], 0.0),
        ([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], 2 / 3),  # 1 of 3 pixels in common
        ([[[1, 0, 0, 0]], [[0, 1, 0, 0]]], 1.0),
        ([[[0, 0, 0, 0]], [[0, 0, 0, 0]]], 0.0),  # no member finds lung: they agree
        ([[[1, 0, 1, 0]]], 0.0),  # one member
    ],
)
def test_disagreement(masks, expected):
    assert disagreement(np.array(masks, bool)) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12),
)
def test_auroc_is_the_share_of_ordered_pairs(rows):
    score = np.array([s for s, _ in rows])
    positive = np.array([p for _, p in rows])
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in score[positive]
        for b in score[~positive]
    ]
    found = auroc(score, positive)
    assert found == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_risk_coverage_by_hand():
    found = risk_coverage(np.array([0.9, 0.5, 0.7]), np.array([0.0, 0.6, 0.3]))
    assert found["coverage"] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found["risk"] == pytest.approx([0.0, 0.15, 0.3])
    assert found["aurc"] == pytest.approx(0.15)


@given(st.permutations(list(range(6))))
def test_risk_coverage_ignores_the_order_of_ties(order):
    confidence = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.1])
    loss = np.array([0.0, 0.2, 0.1, 0.4, 0.1, 1.0])
    found = risk_coverage(confidence[order], loss[order])
    assert found["risk"] == pytest.approx([0.1, 0.1, 0.4 / 3, 0.15, 0.16, 0.3])


def test_review_threshold_catches_slices_of_low_iou(monkeypatch):
    monkeypatch.setattr(uncertainty, "BUDGET", 1.0)
    confidence = np.array([0.99, 0.98, 0.97, 0.90, 0.80])
    iou = np.array([0.98, 0.94, 0.97, 0.95, 0.60])  # 0.95 is not low
    found = review_threshold(confidence, iou)
    assert found["n_low"] == found["caught"] == 2
    assert found["flagged"] == 0.8  # every slice at most as confident as the second
    assert "catches 2 of the 2" in found["rule"]
    monkeypatch.setattr(uncertainty, "CATCH", 0.5)
    half = review_threshold(confidence, iou)
    assert (half["caught"], half["flagged"]) == (1, 0.2)
    assert 0.80 < half["threshold"] < 0.81


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=20))
def test_review_threshold_is_the_smallest_that_catches_enough(rows):
    confidence = np.array([c / 10 for c, _ in rows])
    low = np.array([is_low for _, is_low in rows])
    iou = np.where(low, 0.5, 0.99)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uncertainty, "BUDGET", 1.0)
        found = review_threshold(confidence, iou)
    assert found["flagged"] == np.mean(confidence < found["threshold"])
    assert found["caught"] == (low & (confidence < found["threshold"])).sum()
    if low.any():
        assert found["caught"] >= CATCH * low.sum()
        smaller = np.nextafter(found["threshold"], -np.inf)
        assert (low & (confidence < smaller)).sum() < CATCH * low.sum()


def test_review_threshold_respects_its_budget():
    """A slice with a wrong label has a low IoU and a high confidence."""
    confidence = np.linspace(0.9, 0.99, 24)
    iou = np.full(24, 0.98)
    iou[[2, 23]] = 0.4
    found = review_threshold(confidence, iou)
    assert found["flagged"] == 5 / 24 and found["caught"] == 1  # and 4 of the 22 others
    assert "at most 20%" in found["rule"]
    iou[23] = 0.98
    found = review_threshold(confidence, iou)
    assert (found["flagged"], found["caught"]) == (3 / 24, 1)


@pytest.mark.parametrize("n,flagged", [(5, 1), (10, 2), (25, 5), (105, 21), (11, 2)])
def test_review_threshold_uses_all_of_its_budget(n, flagged):
    confidence = np.arange(n + 1.0)
    iou = np.full(n + 1, 0.98)
    iou[n] = 0.4  # with the highest confidence
    found = review_threshold(confidence, iou)
    assert (confidence[:n] < found["threshold"]).sum() == flagged


def test_review_threshold_may_flag_many_slices_if_many_are_low():
    confidence = np.linspace(0, 0.99, 100)
    found = review_threshold(confidence, np.where(confidence < 0.5, 0.4, 0.98))
    assert found["caught"] == 45 and found["flagged"] == 0.45


def test_review_threshold_without_slices_of_low_iou():
    confidence = np.linspace(0.9, 0.99, 41)
    found = review_threshold(confidence, np.full(41, 0.97))
    assert found["threshold"] == pytest.approx(np.percentile(confidence, 5))
    assert found["n_low"] == 0 and "5th percentile" in found["rule"]
    assert 0 < found["flagged"] <= 0.06
