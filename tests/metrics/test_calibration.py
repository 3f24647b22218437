"""Calibration from histograms, against the same computed from all pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from lungseg_jax.metrics import calibration


def sampled(seed, n=200_000, true_temperature=1.0):
    """Probabilities, and truths sampled as if their logits had this temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, n)
    truth = rng.random(n) < expit(logits / true_temperature)
    return expit(logits).astype(np.float32).reshape(1, -1), truth.reshape(1, -1)


def direct_scores(p, truth, bins=15):
    p, y = p.astype(np.float64).ravel(), truth.ravel()
    column = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(p[column == b].mean() - y[column == b].mean()) * (column == b).sum()
        for b in range(bins)
        if (column == b).any()
    ]
    clipped = np.clip(p, 1e-9, 1 - 1e-9)
    nll = -np.where(y, np.log(clipped), np.log(1 - clipped)).mean()
    return {"ece": sum(gaps) / p.size, "brier": ((p - y) ** 2).mean(), "nll": nll}


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_scores_match_those_of_the_pixels(true_temperature):
    p, truth = sampled(0, true_temperature=true_temperature)
    found = calibration.calibration_scores(calibration.logit_histogram(p, truth))
    assert found.pop("n") == p.size
    expected = direct_scores(p, truth)
    assert found == pytest.approx(expected, abs=1e-3)
    after = calibration.calibration_scores(
        calibration.logit_histogram(p, truth), true_temperature
    )
    assert after["ece"] < 0.005  # the truth was sampled at this temperature


@given(st.floats(2**-20, 1 - 2**-20, width=32), st.integers(0, 10))
def test_bins_are_fine_enough_for_a_single_value(value, lung):
    """The worst case: rounding errors do not average out."""
    p, truth = np.full((1, 10), value, np.float32), np.arange(10)[None] < lung
    found = calibration.calibration_scores(calibration.logit_histogram(p, truth))
    found.pop("n")
    assert found == pytest.approx(direct_scores(p, truth), abs=1e-3)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_fits_the_true_temperature(true_temperature):
    p, truth = sampled(1, true_temperature=true_temperature)
    found = calibration.fit_temperature(calibration.logit_histogram(p, truth))
    assert found == pytest.approx(true_temperature, rel=0.02)


def test_temperature_of_no_pixels_and_of_random_labels():
    assert calibration.fit_temperature(np.zeros((calibration.BINS, 2), int)) == 1.0
    p, truth = np.full((1, 1000), 0.99, np.float32), np.arange(1000) < 500
    hot = calibration.fit_temperature(calibration.logit_histogram(p, truth[None]))
    assert hot == pytest.approx(20.0, rel=0.01)  # the bound


def test_histograms_add_up_and_count_every_pixel():
    p, truth = sampled(2, n=1000)
    whole = calibration.logit_histogram(p, truth)
    parts = [
        calibration.logit_histogram(p[:, i : i + 250], truth[:, i : i + 250])
        for i in range(0, 1000, 250)
    ]
    np.testing.assert_array_equal(sum(parts), whole)
    assert whole.sum() == 1000 and whole[:, 1].sum() == truth.sum()
    np.testing.assert_array_equal(
        calibration.logit_histogram(p, truth, truth | ~truth), whole
    )
    assert calibration.logit_histogram(p, truth, truth)[:, 0].sum() == 0


def test_probabilities_of_0_and_1_are_counted():
    ends = np.array([[0.0, 1.0, 0.0, 1.0]], np.float32)
    truth = np.array([[False, True, True, False]])
    found = calibration.logit_histogram(ends, truth)
    assert found[0].tolist() == [1, 1] and found[-1].tolist() == [1, 1]
    assert calibration.calibration_scores(found)["brier"] == pytest.approx(
        0.5, abs=1e-6
    )


def test_reliability():
    p = np.array([[0.05, 0.05, 0.95, 0.95]], np.float32)
    truth = np.array([[False, True, True, True]])
    found = calibration.reliability_diagram(calibration.logit_histogram(p, truth))
    assert found["count"] == [2, *[0] * 13, 2]
    assert found["frequency"][0] == 0.5 and found["frequency"][14] == 1.0
    assert found["confidence"][0] == pytest.approx(0.05, abs=1e-3)
    assert found["confidence"][5] is None and found["frequency"][5] is None


def test_errors_of_no_pixels_are_none():
    empty = np.zeros((calibration.BINS, 2), int)
    nothing = {"n": 0, "ece": None, "brier": None, "nll": None}
    assert calibration.calibration_scores(empty) == nothing


@given(st.floats(0.05, 20), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9))
def test_apply_temperature_keeps_order_and_ends(temperature, values):
    p = np.sort(np.array([0, *values, 0.5, 1], np.float32))
    out = calibration.apply_temperature(p, temperature)
    assert out.dtype == np.float32 and np.isfinite(out).all()
    assert out[0] == 0 and out[-1] == 1
    assert (np.diff(out) >= 0).all()
    np.testing.assert_array_equal(calibration.apply_temperature(p, 1.0), p)
    assert calibration.apply_temperature(np.float32([0.5]), temperature)[0] == 0.5


@pytest.mark.parametrize("temperature", [0.3, 1.1, 3.0])
@pytest.mark.parametrize("start", [0.01, 0.4999, 0.9])
def test_apply_temperature_keeps_the_order_of_adjacent_floats(start, temperature):
    step = np.spacing(np.float32(start))
    p = np.float32(start) + step * np.arange(10_000, dtype=np.float32)
    assert (np.diff(calibration.apply_temperature(p, temperature)) >= 0).all()


def test_apply_temperature_by_hand():
    p = np.array([0.9], np.float32)  # logit log(9)
    assert calibration.apply_temperature(p, 2.0)[0] == pytest.approx(0.75, abs=1e-6)
    assert calibration.apply_temperature(p, 0.5)[0] == pytest.approx(81 / 82, abs=1e-6)


def test_boundary_band():
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:30] = True
    band = calibration.boundary_band(truth)
    assert band[20].nonzero()[0].tolist() == [*range(5, 15), *range(25, 35)]
    assert not band[6, 6] and band[7, 7]  # a corner is 5.7 and 4.2 away
    for uniform in (np.zeros((4, 4), bool), np.ones((4, 4), bool)):
        assert not calibration.boundary_band(uniform).any()


def test_outlier_weights_bound_the_influence_of_a_slice():
    losses = np.array([0.01, 0.02, 0.02, 0.03, 0.06, 5.0])
    weights = calibration.outlier_weights(losses)
    np.testing.assert_allclose(weights[:4], 1)
    np.testing.assert_allclose((weights * losses)[5], 3 * 0.025)
    assert (calibration.outlier_weights(np.zeros(3)) == 1).all()
    assert (calibration.outlier_weights(np.array([0.4])) == 1).all()
