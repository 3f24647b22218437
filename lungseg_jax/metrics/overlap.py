"""Overlap scores from pixel counts: counts are summed first, ratios come last.

A count row is (tp, fp, fn) of one slice. Float32 represents integers exactly only up to
2**24 and a test set has more pixels, so rows are summed on the host in int64.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np


def count_pixels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count true positive, false positive and false negative pixels.

    Args:
      predicted, truth: masks `[... h w]`, boolean; NumPy or JAX arrays.

    Returns:
      (tp, fp, fn) as `[... 3]`.
    """
    xp = predicted.__array_namespace__()
    tp = (predicted & truth).sum(axis=(-2, -1))
    fp = (predicted & ~truth).sum(axis=(-2, -1))
    fn = (~predicted & truth).sum(axis=(-2, -1))
    return xp.stack([tp, fp, fn], axis=-1)


def iou(rows: np.ndarray) -> np.ndarray:
    """Intersection over union tp / (tp + fp + fn) of rows `[... 3]`; NaN for 0/0."""
    tp, fp, fn = _columns(rows)
    return _ratio(tp, tp + fp + fn)


def dice(rows: np.ndarray) -> np.ndarray:
    """Dice coefficient 2 tp / (2 tp + fp + fn) of rows `[... 3]`; NaN for 0/0."""
    tp, fp, fn = _columns(rows)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def sensitivity(rows: np.ndarray) -> np.ndarray:
    """Share of the truth that is found, tp / (tp + fn), of rows `[... 3]`; NaN for 0/0."""
    tp, _, fn = _columns(rows)
    return _ratio(tp, tp + fn)


def precision(rows: np.ndarray) -> np.ndarray:
    """Share of the prediction that is true, tp / (tp + fp); NaN for 0/0."""
    tp, fp, _ = _columns(rows)
    return _ratio(tp, tp + fp)


def area_error(rows: np.ndarray) -> np.ndarray:
    """Predicted minus true area, relative to the true area; NaN where that is 0.

    Of the summed rows of a volume it is the volume error.
    """
    tp, fp, fn = _columns(rows)
    return _ratio(fp - fn, tp + fn)


SEED = 0  # of the bootstrap: equal slices always have equal intervals

# The metrics that follow from the counts.
RATIOS = {
    "iou": iou,
    "dice": dice,
    "sensitivity": sensitivity,
    "precision": precision,
    "area_error": area_error,
}


def summarize(
    rows: np.ndarray,
    *,
    values: Mapping[str, np.ndarray] | None = None,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
) -> dict:
    """Return the scores of a set of slices.

    Pooled scores add the pixels of all slices first; means and the minimum are over
    slices. A slice that is empty in both masks has no ratio: it is left out of every
    score and counted in `n_both_empty`. A slice that is empty in one of them has IoU,
    Dice and NSD 0; a ratio that is 0/0 for it (sensitivity and area error where the truth
    is empty, precision where the prediction is) is left out of that mean.

    Each `<name>_ci95` is a percentile bootstrap interval (Efron & Tibshirani 1993,
    chapter 13): slices, or groups with all their slices, are resampled.

    Args:
      rows: count rows `[n 3]` of `count_pixels`.
      values: the metrics to average, `[n]` by name, NaN where undefined; `RATIOS` by
        default.
      groups: the patient of each slice.
      resamples: 0 for no intervals.

    Returns:
      "n", "n_both_empty", "iou_pooled", "dice_pooled", "iou_min", "area_error_abs_mean",
      and "<name>_mean" of each of `values`; the pooled scores and these means with their
      intervals. None where undefined: an interval needs two slices or groups.
    """
    rows = np.asarray(rows, np.int64).reshape(-1, 3)
    defined = ~np.isnan(iou(rows))
    with_ratio = rows[defined]
    if values is None:
        values = {name: ratio(rows) for name, ratio in RATIOS.items()}
    per_slice = {
        f"{name}_mean": np.asarray(value, float)[defined]
        for name, value in values.items()
    }
    scores = {
        "n": len(rows),
        "n_both_empty": int((~defined).sum()),
        "iou_pooled": iou(rows.sum(0)),
        "dice_pooled": dice(rows.sum(0)),
        "iou_min": iou(with_ratio).min() if len(with_ratio) else np.nan,
        "area_error_abs_mean": _mean(abs(area_error(with_ratio))),
        **{name: _mean(value) for name, value in per_slice.items()},
    }
    groups = None if groups is None else np.asarray(groups)[defined]
    weights = _resamples(len(with_ratio), groups, resamples)
    scores |= _intervals(with_ratio, per_slice, weights)
    return {
        key: none_if_nan(value) if isinstance(value, (np.ndarray, float)) else value
        for key, value in scores.items()
    }


def none_if_nan(value: float) -> float | None:
    """Convert a score for JSON, which lacks NaN."""
    return None if np.isnan(value) else float(value)


def _intervals(
    rows: np.ndarray, per_slice: Mapping[str, np.ndarray], weights: Iterable[np.ndarray]
) -> dict[str, list]:
    """The bootstrap interval of the pooled scores and of each mean, by "<key>_ci95"."""
    drawn = {name: [] for name in ("iou_pooled", "dice_pooled", *per_slice)}
    for block in weights:
        pooled = block @ rows
        drawn["iou_pooled"].append(iou(pooled))
        drawn["dice_pooled"].append(dice(pooled))
        for name, values in per_slice.items():
            is_defined = ~np.isnan(values)
            weight = block[:, is_defined]
            drawn[name].append(_ratio(weight @ values[is_defined], weight.sum(axis=1)))
    return {f"{name}_ci95": _interval(values) for name, values in drawn.items()}


def _resamples(n: int, groups, resamples: int) -> Iterator[np.ndarray]:
    """Yield how often each slice is drawn, int64 `[rows n]`, in blocks of bounded size."""
    group_index = np.arange(n)
    if groups is not None:
        group_index = np.unique(groups, return_inverse=True)[1]
    k = group_index.max(initial=-1) + 1
    if k < 2:
        return
    rng = np.random.default_rng(SEED)
    block = max(1, 2**22 // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = rng.integers(k, size=(size, k)) + k * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * k).reshape(size, k)
        yield times[:, group_index]


def _interval(values: Sequence[np.ndarray]) -> list[float] | list[None]:
    values = np.concatenate([*values, []])
    values = values[~np.isnan(values)]
    return np.percentile(values, [2.5, 97.5]).tolist() if len(values) else [None, None]


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return values.mean() if len(values) else np.nan


def _columns(rows):
    rows = np.asarray(rows, np.int64)
    return rows[..., 0], rows[..., 1], rows[..., 2]


def _ratio(top, bottom):
    top, bottom = np.asarray(top, float), np.asarray(bottom, float)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
