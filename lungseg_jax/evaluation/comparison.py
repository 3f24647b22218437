"""Scores of existing masks against true ones.

Volumes are scored in 3D, and a single one also by its axial slices, with distances in mm.
Single-slice files have no spacing, so their distances are in pixels.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from lungseg_jax.evaluation.mask_pairs import PairedMasks, PathPairs, pair_masks
from lungseg_jax.evaluation.results import worst_first
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.registry import (
    METRICS,
    MaskPair,
    label_with_unit,
    score_masks,
    summary_scores,
)
from lungseg_jax.runtime.errors import UserError, pluralize

WORST = 10  # volumes of folders that are listed


def compare_masks(
    pairs: PairedMasks,
    *,
    tolerance: float,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Score pairs of masks slice by slice, and a volume also as a whole.

    Both masks of a volume are kept in memory, with a byte for each voxel.

    Args:
      pairs: of `pair_masks`.
      tolerance: of NSD, in pixels or mm.
      progress: called after each slice.

    Returns:
      "unit", "tolerance", "scores" as `overlap.summarize`, "pooled_area_error" (for a
      volume its volume error), "volume" {metric: score in 3D} or None, "slices"
      {name: {metric: score}}.

    Raises:
      UserError: masks cannot be read, or the truth has none of the values of lung.
    """
    scores = SliceScores(tolerance)
    in_plane = pairs.spacing_mm[1:] if pairs.spacing_mm else None
    stacks = None
    for k, (name, truth, prediction) in enumerate(pairs.slices):
        scores.add(name, prediction, truth, in_plane)
        if pairs.is_volume:
            if stacks is None:
                stacks = np.empty((2, pairs.count, *truth.shape), bool)
            stacks[0, k], stacks[1, k] = prediction, truth
        progress()
    _require_lung(scores, pairs.lung)
    volume = None
    if pairs.is_volume:
        volume = score_masks(MaskPair(*stacks, pairs.spacing_mm, tolerance))
    pooled_area_error = overlap.area_error(scores.counts.sum(axis=0))
    return {
        "unit": scores.unit,
        "tolerance": tolerance,
        "scores": scores.summarize(),
        "pooled_area_error": overlap.none_if_nan(pooled_area_error),
        "volume": volume,
        "slices": scores.slices,
    }


def compare_volumes(
    pairs: PathPairs,
    *,
    tolerance: float,
    lung: Collection[int] = (),
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Score pairs of volumes in 3D; those of one pair at a time are in memory.

    Args:
      pairs: of `mask_pairs.pair_volumes`.
      tolerance: of NSD, in pixels or mm.
      lung: the values of the truth that are lung; if there are none, it is a mask.
      progress: called after each pair.

    Returns:
      "unit", "tolerance", "scores" as `overlap.summarize`, with volumes for slices, and
      "volumes" {name: {metric: score}}.

    Raises:
      UserError: as `compare_masks`.
    """
    scores = SliceScores(tolerance)
    for name, (truth, prediction) in pairs.items():
        with pair_masks(truth, prediction, lung=lung) as masks:
            _, *stacks = zip(*masks.slices, strict=True)
            true, predicted = map(np.stack, stacks)
            scores.add(name, predicted, true, masks.spacing_mm)
        progress()
    _require_lung(scores, lung)
    return {
        "unit": scores.unit,
        "tolerance": tolerance,
        "scores": scores.summarize(),
        "volumes": scores.slices,
    }


def _require_lung(scores: SliceScores, lung: Collection[int]) -> None:
    """Refuse values that are lung, of which no truth has one: they are a slip."""
    tp, _, fn = scores.counts.sum(axis=0)
    if lung and not tp + fn:
        raise UserError(
            "no true mask has lung.",
            rule=f"lung has the values {', '.join(map(str, sorted(lung)))}.",
            remedy="name other values with --lung.",
        )


def format_scores(comparison: Mapping[str, Any]) -> str:
    """Format the result of `compare_masks` or `compare_volumes` as tables."""
    unit, volumes = comparison["unit"], comparison.get("volumes")
    volume, area_error = map(comparison.get, ("volume", "pooled_area_error"))
    lines = []
    if volumes:
        lines = _format_worst(volumes, unit)
    elif volume:
        lines = _format_volume(volume, unit)
    lines += _format_summary(comparison, "volume" if volumes else "slice")
    if area_error is not None and not volume:
        lines.append(f"all slices together: {area_error:+.2%} of the area")
    return "\n".join(lines)


def _format_summary(comparison: Mapping[str, Any], noun: str) -> list[str]:
    scores, unit = comparison["scores"], comparison["unit"]
    lines, legend = [], ""
    for score in summary_scores(of_volumes=noun == "volume"):
        interval = ""
        low, high = scores[f"{score.key}_ci95"]
        if low is not None:
            interval = f"   {low:.4f} to {high:.4f}"
            legend = f"; intervals hold 95 % of bootstrap resamples of the {noun}s"
        value = "-" if scores[score.key] is None else f"{scores[score.key]:.4f}"
        lines.append(f"{label_with_unit(score, unit):14}{value:>10}{interval}")
    if legend:
        legend += ", and are too narrow if several are of one patient"
    counts = f"{pluralize(scores['n'], noun)}, {scores['n_both_empty']} empty in both"
    return [*lines, f"{counts}; NSD at {comparison['tolerance']:g} {unit}{legend}"]


def _format_worst(
    volumes: Mapping[str, Mapping[str, float | None]], unit: str
) -> list[str]:
    """Format the volumes with the lowest IoU as a table; those without one come last."""
    metrics = [metric for metric in METRICS.values() if metric.in_slice_table]
    labels = [label_with_unit(m, unit, m.volume_label) for m in metrics]
    worst = worst_first(volumes, only_scored=False)[:WORST]
    of_all = f"the worst {WORST} of {len(volumes)} " if volumes.keys() - worst else ""
    lines = [f"{of_all}volumes, in 3D:", "  ".join(f"{label:>8}" for label in labels)]
    for name in worst:
        cells = []
        for label, metric in zip(labels, metrics, strict=True):
            score = volumes[name][metric.name]
            cell = "-" if score is None else f"{score:{metric.format}}"
            cells.append(cell.rjust(max(8, len(label))))
        lines.append("  ".join([*cells, name]))
    return [*lines, "", "of all volumes, the mean of each score:"]


def _format_volume(volume: Mapping[str, float | None], unit: str) -> list[str]:
    lines = ["the volume as a whole, in 3D:"]
    for metric in METRICS.values():
        label = label_with_unit(metric, unit, metric.volume_label)
        score = volume[metric.name]
        lines.append(f"{label:14}{'-' if score is None else f'{score:.4f}':>10}")
    return [*lines, "", "its axial slices, the mean of each score:"]
