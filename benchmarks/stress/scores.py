"""Scores of a contestant on changed slices, with bootstrap intervals over the slices."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lungseg_jax.evaluation.tuning import LOW_IOU
from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.uncertainty import auroc

from . import anatomy

RESAMPLES = 2000
CHANGED_HU = 100  # a pixel that changed by more belongs to the disease


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a contestant did on the slices of a family at a level.

    Attributes:
      counts: true positive, false positive and false negative pixels, int64 `[n 3]`.
      flagged: the slices flagged for review, bool `[n]`; None if nothing can be flagged.
      expected_iou: of each mask, `[n]`; None if the contestant has no idea of it.
      found: pixels of changed lung, found and all, int64 `[n 2]`; None if not of interest.
      body: pixels of the patient before the change, int64 `[n]`.
      pixel_cm2: area of a pixel, `[n]`, by the assumed scale of the slices.
      refused: why the contestant refused the slices, if it did; the rest is then empty.
    """

    counts: np.ndarray
    flagged: np.ndarray | None = None
    expected_iou: np.ndarray | None = None
    found: np.ndarray | None = None
    body: np.ndarray | None = None
    pixel_cm2: np.ndarray | None = None
    refused: str = ""


def score_cell(
    predicted: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    flagged: Sequence[bool] | None = None,
    expected_iou: Sequence[float] | None = None,
    changed: Sequence[np.ndarray] | None = None,
    body: Sequence[int] | None = None,
) -> Cell:
    """Count pixels.

    Args:
      predicted, truth: bool `[h w]` each.
      flagged: whether each slice was flagged for review.
      expected_iou: of each mask.
      changed: lung that the change touched, bool `[h w]` each.
      body: pixels of the patient in each slice.
    """
    pairs = list(zip(predicted, truth, strict=True))
    found = None
    if changed is not None:
        found = [
            [(p & c).sum(), c.sum()] for p, c in zip(predicted, changed, strict=True)
        ]
    return Cell(
        counts=np.array([overlap.count_pixels(p, t) for p, t in pairs], np.int64),
        flagged=None if flagged is None else np.array(flagged, bool),
        expected_iou=None if expected_iou is None else np.array(expected_iou, float),
        found=None if found is None else np.array(found, np.int64),
        body=None if body is None else np.array(body, np.int64),
        pixel_cm2=np.array([anatomy.pixel_mm(t.shape) ** 2 / 100 for _, t in pairs]),
    )


def changed_lung(
    image: np.ndarray, changed: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Return the lung pixels that a change of equal size moved by `CHANGED_HU`."""
    return mask & (abs(changed.astype(np.float32) - image) > CHANGED_HU)


def summarize_cell(cell: Cell, threshold: Cell, *, has_lung: bool) -> dict:
    """Return the scores of a contestant, and its paired difference to the threshold.

    Returns:
      With lung "iou"; without "false_share" of the body, "false_cm2" per slice and
      "empty", the share of slices left empty. Both with "flagged", "score" (that one of
      them which is compared), "score_ci95", "minus_threshold", "minus_threshold_ci95".
      Only "refused" if the contestant refused the slices. None where undefined.
    """
    if cell.refused:
        return {"refused": cell.refused}
    flagged = None if cell.flagged is None else float(cell.flagged.mean())
    scores: dict = {"flagged": flagged}
    if has_lung:
        scores["iou"] = _plain(_pooled(cell, True))
    else:
        false = cell.counts[:, 1]
        scores["false_share"] = _pooled(cell, False)
        scores["false_cm2"] = float((false * cell.pixel_cm2).mean())
        scores["empty"] = float((false == 0).mean())
    if cell.found is not None:
        found, changed = cell.found.sum(axis=0)
        scores["found"] = float(found / changed) if changed else None
    scores["score"] = _plain(_pooled(cell, has_lung))
    scores["score_ci95"] = _interval(_resampled(cell, has_lung))
    scores |= _difference([cell], [threshold], has_lung)
    return scores


def summarize_family(
    cells: Sequence[Cell],
    threshold: Sequence[Cell],
    *,
    levels: Sequence,
    moderate: Sequence,
    has_lung: bool,
) -> dict:
    """Return the mean over the moderate levels, the worst level, and the comparison.

    Args:
      cells: of the contestant, by level.
      threshold: of the ten lines, by level.
      levels: of the cells.
      moderate: those of them that the mean is over.
      has_lung: whether a high score is good.

    Returns:
      "moderate_mean" with "moderate_mean_ci95", "minus_threshold" and
      "minus_threshold_ci95" of the moderate levels; "worst" and "worst_level"; "flagged"
      on all levels; "below_threshold" (the interval of the difference excludes 0),
      "perhaps_below_threshold" and "refused", levels.
    """
    rows = list(zip(levels, cells, threshold, strict=True))
    scored = [row for row in rows if not row[1].refused]
    summary: dict = {
        "refused": [level for level, cell, _ in rows if cell.refused],
        "below_threshold": [],
        "perhaps_below_threshold": [],
    }
    for level, cell, other in scored:
        difference = _difference([cell], [other], has_lung)
        if _is_worse(difference["minus_threshold"], has_lung):
            interval = difference["minus_threshold_ci95"]
            is_sure = interval and all(_is_worse(end, has_lung) for end in interval)
            key = "below_threshold" if is_sure else "perhaps_below_threshold"
            summary[key].append(level)
    in_range = [row for row in scored if row[0] in moderate]
    own, others = [row[1] for row in in_range], [row[2] for row in in_range]
    summary["moderate_mean"] = _mean([_pooled(cell, has_lung) for cell in own])
    resampled = [_resampled(cell, has_lung) for cell in own]
    summary["moderate_mean_ci95"] = _interval(_mean_of(resampled))
    summary |= _difference(own, others, has_lung)
    scores = [(_pooled(cell, has_lung), level) for level, cell, _ in scored]
    scores = [row for row in scores if not np.isnan(row[0])]
    worst = (min if has_lung else max)(
        scores, key=lambda row: row[0], default=(None,) * 2
    )
    summary["worst"], summary["worst_level"] = worst
    flags = [cell.flagged for _, cell, _ in scored if cell.flagged is not None]
    summary["flagged"] = float(np.concatenate(flags).mean()) if flags else None
    return summary


def summarize_review(cells: Sequence[Cell]) -> dict | None:
    """Return how well a contestant knows which of its masks are bad.

    Args:
      cells: of all families and levels with lung.

    Returns:
      "n" slices, "low", those with an IoU below LOW_IOU; "auroc" of telling them by the
      expected IoU; "flagged_low" and "flagged_others", shares. None for a contestant that
      says nothing about its masks.
    """
    cells = [cell for cell in cells if cell.expected_iou is not None]
    if not cells:
        return None
    ious = np.concatenate([overlap.iou(cell.counts) for cell in cells])
    expected = np.concatenate([cell.expected_iou for cell in cells])
    is_low = np.nan_to_num(ious, nan=1.0) < LOW_IOU
    summary = {
        "n": len(ious),
        "low": int(is_low.sum()),
        "auroc": auroc(-expected, is_low),
    }
    flags = [cell.flagged for cell in cells]
    known = all(flag is not None for flag in flags)
    flagged = np.concatenate(flags) if known else np.full(len(ious), np.nan)
    for name, chosen in (("flagged_low", is_low), ("flagged_others", ~is_low)):
        share = flagged[chosen].mean() if chosen.any() else np.nan
        summary[name] = _plain(float(share))
    return summary


def _pooled(cell: Cell, has_lung: bool) -> float:
    return float(_score(cell, np.ones((1, len(cell.counts)), np.int64), has_lung)[0])


def _resampled(cell: Cell, has_lung: bool) -> np.ndarray:
    """Return the score of each bootstrap resample of the slices."""
    return _score(cell, _draws(len(cell.counts)), has_lung)


def _score(cell: Cell, weights: np.ndarray, has_lung: bool) -> np.ndarray:
    """Return the pooled IoU, or false lung per body, for weights `[k n]` of slices."""
    if has_lung:
        return overlap.iou(weights @ cell.counts)
    return weights @ cell.counts[:, 1] / np.maximum(weights @ cell.body, 1)


def _difference(own: Sequence[Cell], others: Sequence[Cell], has_lung: bool) -> dict:
    """Return the mean difference of paired cells, resampled together."""
    pairs = list(zip(own, others, strict=True))
    points = [_pooled(a, has_lung) - _pooled(b, has_lung) for a, b in pairs]
    resampled = [_resampled(a, has_lung) - _resampled(b, has_lung) for a, b in pairs]
    return {
        "minus_threshold": _mean(points),
        "minus_threshold_ci95": _interval(_mean_of(resampled)),
    }


@functools.cache
def _draws(n: int) -> np.ndarray:
    """Draw how often each of n slices is taken, `[RESAMPLES n]`; always the same."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def _interval(values: np.ndarray | None) -> list[float] | None:
    values = np.array([]) if values is None else values[~np.isnan(values)]
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    return np.percentile(values, [2.5, 97.5]).tolist()


def _mean_of(rows: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.mean(rows, axis=0) if rows else None


def _mean(values: Sequence[float]) -> float | None:
    return _plain(float(np.mean(values))) if len(values) else None


def _plain(value: float) -> float | None:
    """Return None for NaN, which JSON lacks."""
    return None if np.isnan(value) else value


def _is_worse(difference: float | None, has_lung: bool) -> bool:
    if difference is None:
        return False
    return difference < 0 if has_lung else difference > 0
