"""Pixel counts, ratios, and summaries with bootstrap intervals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.overlap import (
    area_error,
    count_pixels,
    dice,
    iou,
    precision,
    sensitivity,
    summarize,
)

# prediction, truth, (tp, fp, fn)
COUNTS = [
    ([[1, 1], [0, 0]], [[1, 0], [1, 0]], (1, 1, 1)),
    ([[1, 1], [1, 1]], [[1, 0], [0, 0]], (1, 3, 0)),
    ([[0, 0], [0, 0]], [[1, 1], [0, 1]], (0, 0, 3)),
    ([[0, 0], [0, 0]], [[0, 0], [0, 0]], (0, 0, 0)),
    ([[1, 0], [0, 1]], [[1, 0], [0, 1]], (2, 0, 0)),
]

# A small slice that is half right and a large one that is nearly right:
# IoU 1/2 and 9/10, Dice 2/3 and 18/19; pooled IoU 91/102, pooled Dice 182/193.
SMALL_AND_LARGE = [[1, 1, 0], [90, 4, 6]]


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("predicted,truth,expected", COUNTS)
def test_counts_by_hand(xp, predicted, truth, expected):
    row = count_pixels(xp.array(predicted, bool), xp.array(truth, bool))
    assert isinstance(row, type(xp.zeros(1)))
    assert tuple(np.asarray(row)) == expected


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_stack_has_a_count_row_for_each_slice(xp):
    predicted = xp.array([p for p, _, _ in COUNTS], bool)  # [5 2 2]
    truth = xp.array([t for _, t, _ in COUNTS], bool)
    rows = np.asarray(count_pixels(predicted, truth))
    np.testing.assert_array_equal(rows, [row for _, _, row in COUNTS])


def test_counts_of_members_by_slices():
    """Leading axes are kept: predictions [m n h w] give [m n 3]."""
    predicted = np.zeros((2, 3, 4, 5), bool)
    predicted[1] = True
    truth = np.ones((3, 4, 5), bool)
    rows = count_pixels(predicted, truth)
    assert rows.shape == (2, 3, 3)
    assert (rows[0] == [0, 0, 20]).all() and (rows[1] == [20, 0, 0]).all()


@pytest.mark.parametrize(
    "row,expected_iou,expected_dice",
    [
        ([1, 1, 1], 1 / 3, 1 / 2),
        ([3, 1, 0], 3 / 4, 6 / 7),
        ([5, 0, 0], 1.0, 1.0),
        ([0, 2, 0], 0.0, 0.0),
        ([0, 0, 7], 0.0, 0.0),
        ([0, 0, 0], np.nan, np.nan),
    ],
)
def test_ratios_by_hand(row, expected_iou, expected_dice):
    np.testing.assert_allclose(iou(row), expected_iou)
    np.testing.assert_allclose(dice(row), expected_dice)


def test_pooled_scores_differ_from_means():
    result = summarize(SMALL_AND_LARGE)
    assert result["n"] == 2 and result["n_both_empty"] == 0
    assert result["iou_pooled"] == pytest.approx(91 / 102)
    assert result["dice_pooled"] == pytest.approx(182 / 193)
    assert result["iou_mean"] == pytest.approx((1 / 2 + 9 / 10) / 2)
    assert result["dice_mean"] == pytest.approx((2 / 3 + 18 / 19) / 2)
    assert result["iou_min"] == pytest.approx(1 / 2)


def test_slices_empty_in_both_masks_are_left_out_and_counted():
    result = summarize([*SMALL_AND_LARGE, [0, 0, 0], [0, 0, 0]])
    without = summarize(SMALL_AND_LARGE)
    assert (result["n"], result["n_both_empty"]) == (4, 2)
    for key in without.keys() - {"n", "n_both_empty"}:
        assert result[key] == without[key], key
    assert result["iou_min"] == 0.5


@pytest.mark.parametrize("one_empty", [[0, 9, 0], [0, 0, 9]])
def test_an_empty_mask_against_lung_scores_zero(one_empty):
    result = summarize([[1, 0, 0], one_empty])
    assert result["n_both_empty"] == 0
    assert (result["iou_mean"], result["iou_min"]) == (0.5, 0.0)
    assert result["dice_mean"] == 0.5
    assert result["iou_pooled"] == pytest.approx(1 / 10)
    assert result["dice_pooled"] == pytest.approx(2 / 11)


@pytest.mark.parametrize("rows", [[], [[0, 0, 0]], [[0, 0, 0]] * 3])
def test_scores_of_nothing_are_none(rows):
    found = summarize(rows)
    assert (
        summarize(rows, values={"nsd": np.full(len(rows), np.nan)})["nsd_mean"] is None
    )
    assert found.pop("n") == found.pop("n_both_empty") == len(rows)
    for name, value in found.items():
        assert value == ([None, None] if name.endswith("_ci95") else None), name


def test_sensitivity_precision_and_area_error_by_hand():
    row = [6, 2, 4]  # 6 of 10 true pixels are found, and 2 others
    assert (sensitivity(row), precision(row), area_error(row)) == (0.6, 0.75, -0.2)
    result = summarize([row, [10, 0, 0]])
    assert result["sensitivity_mean"] == pytest.approx(0.8)
    assert result["precision_mean"] == pytest.approx(0.875)
    assert result["area_error_mean"] == pytest.approx(-0.1)
    assert summarize([row, [5, 5, 0]])["area_error_abs_mean"] == pytest.approx(0.6)


def test_undefined_values_are_left_out_of_their_own_mean_only():
    found, missed, invented = [8, 1, 2], [0, 0, 9], [0, 9, 0]
    result = summarize([found, missed, invented])
    assert result["sensitivity_mean"] == pytest.approx((0.8 + 0) / 2)
    assert result["precision_mean"] == pytest.approx((8 / 9 + 0) / 2)
    assert result["area_error_mean"] == pytest.approx((-0.1 - 1) / 2)
    assert result["iou_mean"] == pytest.approx(8 / 11 / 3)


def test_given_values_are_averaged_where_they_are_defined():
    values = {
        "nsd": [1.0, np.nan, 0.0],
        "hd95": [2.0, np.nan, 90.0],
        "assd": [0.5, np.nan, 90.0],
    }
    result = summarize([[5, 0, 0], [0, 0, 0], [0, 0, 7]], values=values)
    assert result["nsd_mean"] == 0.5 and result["hd95_mean"] == 46.0
    assert result["assd_mean"] == pytest.approx(45.25)
    assert result["hd95_mean_ci95"] == [2.0, 90.0]
    assert result["iou_min"] == 0.0 and "iou_mean" not in result


def test_patients_are_resampled_with_all_their_slices():
    """Equal slices of a patient carry no more information than one of them."""
    rows = some_rows(12)
    patients = [f"p{i:02}" for i in range(12)]
    single = summarize(rows, groups=patients)
    assert single == summarize(rows)  # one slice per patient
    ten_each = summarize(np.repeat(rows, 10, axis=0), groups=np.repeat(patients, 10))
    np.testing.assert_allclose(ten_each["iou_mean_ci95"], single["iou_mean_ci95"])
    as_if_independent = summarize(np.repeat(rows, 10, axis=0))["iou_mean_ci95"]
    assert np.ptp(as_if_independent) < 0.5 * np.ptp(single["iou_mean_ci95"])


def test_the_patient_of_a_slice_without_lung_is_not_resampled():
    rows, patients = some_rows(6), list("aabbcc")
    more = summarize([[0, 0, 0], *rows], groups=["x", *patients])
    for name, interval in summarize(rows, groups=patients).items():
        if name.endswith("_ci95"):
            assert more[name] == interval, name


def test_slices_without_a_value_do_not_widen_its_interval():
    values = {"nsd": [np.nan, 0.8] * 20}
    result = summarize(some_rows(), values=values)
    assert result["nsd_mean_ci95"] == pytest.approx([0.8, 0.8])


def test_a_single_slice_or_patient_has_no_interval():
    assert summarize([[5, 1, 1]])["iou_pooled_ci95"] == [None, None]
    patient = summarize(some_rows(5), groups=["p"] * 5)
    assert patient["iou_mean_ci95"] == [None, None]
    assert patient["iou_mean"] is not None


def test_intervals_do_not_depend_on_the_block_size(monkeypatch):
    rows = some_rows()
    expected = summarize(rows)

    def blocks(n, groups, resamples):
        draws = np.random.default_rng(overlap.SEED).integers(n, size=(resamples, n))
        for draw in draws:
            yield np.bincount(draw, minlength=n)[None]

    monkeypatch.setattr(overlap, "_resamples", blocks)
    for name, value in summarize(rows).items():
        assert value == pytest.approx(expected[name]), name


@pytest.mark.parametrize("xp", [np, jnp])
def test_sums_above_2_to_24_are_exact(xp):
    """In float32 2**24 + 1 rounds to 2**24, and the IoU would be exactly 1."""
    rows = xp.array([[2**24, 0, 0], [0, 1, 0]], xp.int32)
    result = summarize(rows)
    assert result["iou_pooled"] == 2**24 / (2**24 + 1) != 1.0
    # 600 slices of 2048x2048 overflow int32 too.
    many = np.tile(np.array([[2**22 - 1, 1, 0]], np.int32), (600, 1))
    assert summarize(many, resamples=0)["iou_pooled"] == (2**22 - 1) / 2**22


def some_rows(n=40):
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(*ab, n) for ab in ((50, 99), (0, 9), (0, 20))], 1)


def test_interval_brackets_the_pooled_value():
    rows = some_rows()
    result = summarize(rows)
    low, high = result["iou_pooled_ci95"]
    assert low < result["iou_pooled"] < high
    # The ratio of means has this standard error (delta method); 1.96 of it either way.
    tp, total = rows[:, 0], rows.sum(1)
    residual = tp - result["iou_pooled"] * total
    half = 1.96 * residual.std(ddof=1) / total.mean() / np.sqrt(len(rows))
    assert high - low == pytest.approx(2 * half, rel=0.2)


def test_an_interval_holds_95_percent_of_the_resamples():
    rows = some_rows()
    draws = np.random.default_rng(0).integers(len(rows), size=(2000, len(rows)))
    low, high = np.percentile(iou(rows[draws].sum(axis=1)), [2.5, 97.5])
    assert summarize(rows)["iou_pooled_ci95"] == pytest.approx([low, high])


def test_the_interval_of_equal_slices_is_a_point():
    assert summarize([[3, 1, 0]] * 5)["iou_pooled_ci95"] == [0.75, 0.75]


def test_without_resamples_there_is_no_interval():
    result = summarize(SMALL_AND_LARGE, resamples=0)
    assert result["iou_pooled_ci95"] == [None, None]
    assert result["iou_pooled"] == pytest.approx(91 / 102)


@pytest.mark.parametrize("rows", [SMALL_AND_LARGE, [[0, 0, 0]], []])
def test_results_survive_json(rows):
    result = summarize(jnp.array(rows, jnp.int32))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
