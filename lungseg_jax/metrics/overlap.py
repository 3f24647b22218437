"""Overlap scores from pixel counts that add up; the ratio comes last.

A count row is (tp, fp, fn) of one slice. Float32 holds integers exactly only up to
2**24 and a test set has more pixels, so rows are added on the host in int64.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def count(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(tp, fp, fn) of boolean masks `[... h w]`, as `[... 3]`; NumPy or JAX arrays."""
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
    """The share of the truth that is found, tp / (tp + fn), of rows `[... 3]`; or NaN."""
    tp, _, fn = _columns(rows)
    return _ratio(tp, tp + fn)


def precision(rows: np.ndarray) -> np.ndarray:
    """The share of the prediction that is true, tp / (tp + fp), of rows; or NaN."""
    tp, fp, _ = _columns(rows)
    return _ratio(tp, tp + fp)


def area_error(rows: np.ndarray) -> np.ndarray:
    """Predicted area less true area, relative to the true one; NaN where that is 0.

    For the slices of a volume together it is the error of the volume.
    """
    tp, fp, fn = _columns(rows)
    return _ratio(fp - fn, tp + fn)


def summarize(
    rows: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    surfaces: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict:
    """The scores of a set of slices, from count rows `[n 3]`.

    Pooled scores add the pixels of all slices first; mean and min are over slices.
    A slice that is empty in truth and in prediction has no ratio: it is left out of every
    score and counted in `n_both_empty`. One that is empty on one side has IoU, Dice and
    NSD 0; a ratio that is 0/0 of it (sensitivity and area error where the truth is empty,
    precision where the prediction is) is left out of that mean.

    Each `<name>_ci95` is the percentile bootstrap (Efron & Tibshirani 1993, chapter 13),
    2000 resamples drawn with `seed`: of slices, or of groups with all of their slices.

    Args:
      rows: of `count`.
      groups: the patient of each slice.
      surfaces: `[n 3]`, "nsd", "hd95", "assd" of `surfaces.surface_scores`.
      seed: of the resamples.
      resamples: 0 for no intervals.

    Returns:
      "n", "n_both_empty", "iou_pooled", "dice_pooled", the means "iou_mean", "dice_mean",
      "sensitivity_mean", "precision_mean", "area_error_mean" (signed), "nsd_mean",
      "hd95_mean", "assd_mean" (these where `surfaces` is given), each with its interval;
      "iou_min" and "area_error_abs_mean". None where undefined: an interval needs two
      slices or groups.
    """
    rows = np.asarray(rows, np.int64).reshape(-1, 3)
    defined = ~np.isnan(iou(rows))
    with_ratio = rows[defined]
    per_slice = {
        "iou_mean": iou(with_ratio),
        "dice_mean": dice(with_ratio),
        "sensitivity_mean": sensitivity(with_ratio),
        "precision_mean": precision(with_ratio),
        "area_error_mean": area_error(with_ratio),
    }
    if surfaces is not None:
        columns = np.asarray(surfaces, float).reshape(-1, 3)[defined].T
        names = ("nsd_mean", "hd95_mean", "assd_mean")
        per_slice |= dict(zip(names, columns, strict=True))
    found = {
        "n": len(rows),
        "n_both_empty": int((~defined).sum()),
        "iou_pooled": iou(rows.sum(0)),
        "dice_pooled": dice(rows.sum(0)),
        "iou_min": per_slice["iou_mean"].min(initial=np.inf),
        "area_error_abs_mean": _mean(abs(per_slice["area_error_mean"])),
        **{name: _mean(values) for name, values in per_slice.items()},
    }
    if not len(with_ratio):
        found["iou_min"] = np.nan
    kept = None if groups is None else np.asarray(groups)[defined]
    drawn = {name: [] for name in ("iou_pooled", "dice_pooled", *per_slice)}
    for weights in _resamples(len(with_ratio), kept, seed, resamples):
        pooled = weights @ with_ratio
        drawn["iou_pooled"].append(iou(pooled))
        drawn["dice_pooled"].append(dice(pooled))
        for name, values in per_slice.items():
            there = ~np.isnan(values)
            weight = weights[:, there]
            drawn[name].append(_ratio(weight @ values[there], weight.sum(axis=1)))
    found |= {f"{name}_ci95": _interval(values) for name, values in drawn.items()}
    return {key: _plain(value) for key, value in found.items()}


def _resamples(n: int, groups, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each slice is drawn, int64 `[rows n]`, in blocks of bounded memory."""
    of_group = np.arange(n)
    if groups is not None:
        of_group = np.unique(groups, return_inverse=True)[1]
    k = of_group.max(initial=-1) + 1
    if k < 2:
        return
    rng = np.random.default_rng(seed)
    block = max(1, 2**22 // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = rng.integers(k, size=(size, k)) + k * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * k).reshape(size, k)
        yield times[:, of_group]


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


def _plain(value):
    """Python numbers for JSON; NaN, which JSON lacks, becomes None."""
    if isinstance(value, (np.ndarray, np.floating, float)):
        return None if np.isnan(value) else float(value)
    return value
