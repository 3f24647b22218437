"""Overlap scores from pixel counts that add up; the ratio comes last.

A count row is (tp, fp, fn) of one slice. Float32 holds integers exactly only up to
2**24 and a test set has more pixels, so rows are added on the host in int64.
"""

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


def scores(rows: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> dict:
    """The scores of a set of slices, from count rows `[n 3]`.

    Pooled scores add the pixels of all slices first; mean and min are over slices.
    A slice that is empty in truth and in prediction has no ratio: it is left out of mean
    and min and counted in `n_both_empty`. A slice that is empty on one side scores 0.

    `iou_pooled_ci95` is the percentile bootstrap over slices (Efron & Tibshirani 1993,
    chapter 13), 2000 resamples drawn with `seed`. Scores are None where undefined.
    """
    rows = np.asarray(rows, np.int64).reshape(-1, 3)
    per_slice = iou(rows)
    defined = ~np.isnan(per_slice)
    with_ratio = rows[defined]
    result = {
        "n": len(rows),
        "n_both_empty": int((~defined).sum()),
        "iou_pooled": iou(rows.sum(0)),
        "iou_pooled_ci95": [None, None],
        "dice_pooled": dice(rows.sum(0)),
        "iou_mean": None,
        "iou_min": None,
        "dice_mean": None,
    }
    if len(with_ratio) and resamples:
        draws = np.random.default_rng(seed).integers(
            len(with_ratio), size=(resamples, len(with_ratio))
        )
        pooled = iou(with_ratio[draws].sum(axis=1))
        result |= {
            "iou_pooled_ci95": np.percentile(pooled, [2.5, 97.5]).tolist(),
        }
    if len(with_ratio):
        result |= {
            "iou_mean": per_slice[defined].mean(),
            "iou_min": per_slice[defined].min(),
            "dice_mean": dice(with_ratio).mean(),
        }
    return {key: _plain(value) for key, value in result.items()}


def _columns(rows):
    rows = np.asarray(rows, np.int64)
    return rows[..., 0], rows[..., 1], rows[..., 2]


def _ratio(top, bottom):
    top, bottom = np.asarray(top, float), np.asarray(bottom, float)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _plain(value):
    """Python numbers for JSON; NaN, which JSON lacks, becomes None."""
    if isinstance(value, (np.ndarray, np.floating)):
        return None if np.isnan(value) else float(value)
    return value
