"""Scores of existing masks against true ones: two files, two folders or two volumes.

A volume is scored in 3D and by its axial slices, with distances in mm. Single-slice files
have no spacing, so their distances are in pixels.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    EITHER,
    SLICE,
    is_volume,
    open_volume,
    read_slice_mask,
    suffixes,
)
from lungseg_jax.data.io.images import as_mask
from lungseg_jax.data.io.volumes import Volume, require_same_grid
from lungseg_jax.data.pairs import list_images, same_names
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.inference.prediction_task import COMPANION_ENDINGS
from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.registry import (
    METRICS,
    MaskPair,
    label_with_unit,
    score_masks,
    summary_scores,
)
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.files import missing_path

# Name, truth and prediction of a slice, `[h w]` boolean.
NamedMasks = tuple[str, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class PairedMasks:
    """The slices of true masks and of the masks to score.

    Attributes:
      count: the number of slices.
      slices: reads them.
      is_volume: whether they are those of one volume, from feet to head.
      spacing_mm: between the slices, rows and columns of a volume; None if unknown.
    """

    count: int
    slices: Iterator[NamedMasks]
    is_volume: bool = False
    spacing_mm: tuple[float, float, float] | None = None


@contextlib.contextmanager
def pair_masks(truth: Path, prediction: Path) -> Iterator[PairedMasks]:
    """Pair the slices of two files, two folders or two volumes, open in the context.

    Args:
      truth: the true masks.
      prediction: the masks to score; in a folder, what `lungseg predict` writes beside
        its masks is skipped.

    Raises:
      UserError: a path is missing, the two are of different kinds, or their names, sizes
        or geometries differ.
    """
    for path in (truth, prediction):
        if not path.exists():
            raise missing_path(path)
    kinds = {path: _kind(path) for path in (truth, prediction)}
    if len(set(kinds.values())) > 1:
        raise UserError(
            f"{truth} is {kinds[truth]} and {prediction} is {kinds[prediction]}.",
            rule="two files, two folders or two volumes.",
        )
    if kinds[truth] == "a volume":
        with open_volume(truth) as true, open_volume(prediction) as predicted:
            require_same_grid(true, predicted)
            yield PairedMasks(
                true.count,
                _read_volumes(true, predicted),
                is_volume=True,
                spacing_mm=true.spacing_mm,
            )
        return
    files = {truth.name: (truth, prediction)}
    if kinds[truth] == "a folder":
        files = _pair_files(truth, prediction)
    yield PairedMasks(len(files), _read_files(files))


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
      volume its volume error), "volume" {name: score in 3D} or None, "slices"
      {name: scores}.
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


def format_scores(comparison: Mapping[str, Any]) -> str:
    """Format the result of `compare_masks` as a table, or two for a volume."""
    scores, unit = comparison["scores"], comparison["unit"]
    volume = comparison["volume"]
    lines = _format_volume(volume, unit) if volume else []
    for score in summary_scores():
        low, high = scores[f"{score.key}_ci95"]
        interval = "" if low is None else f"   {low:.4f} to {high:.4f}"
        value = "-" if scores[score.key] is None else f"{scores[score.key]:.4f}"
        lines.append(f"{label_with_unit(score, unit):14}{value:>10}{interval}")
    legend = ""
    if any(scores[f"{score.key}_ci95"][0] is not None for score in summary_scores()):
        legend = (
            "; intervals hold 95 % of bootstrap resamples of the slices, and are too "
            "narrow if these are of one patient"
        )
    lines.append(
        f"{pluralize(scores['n'], 'slice')}, {scores['n_both_empty']} empty in both; "
        f"NSD at {comparison['tolerance']:g} {unit}{legend}"
    )
    if comparison["pooled_area_error"] is not None and not volume:
        lines.append(
            f"all slices together: {comparison['pooled_area_error']:+.2%} of the area"
        )
    return "\n".join(lines)


def _format_volume(volume: Mapping[str, float | None], unit: str) -> list[str]:
    lines = ["the volume as a whole, in 3D:"]
    for metric in METRICS.values():
        label = label_with_unit(metric, unit, metric.volume_label)
        score = volume[metric.name]
        lines.append(f"{label:14}{'-' if score is None else f'{score:.4f}':>10}")
    return [*lines, "", "its axial slices, the mean of each score:"]


def _kind(path: Path) -> str:
    if is_volume(path) or is_dicom(path):
        return "a volume"
    return "a folder" if path.is_dir() else "a file"


def _pair_files(truth: Path, prediction: Path) -> dict[str, tuple[Path, Path]]:
    """The files of two folders by name, paired."""
    truths = list_images(truth, (SLICE, EITHER))
    predictions = {
        name: path
        for name, path in list_images(prediction, (SLICE, EITHER)).items()
        if name in truths or not name.endswith(COMPANION_ENDINGS)
    }
    names = same_names(predictions, truths)
    predictions = dict(zip(names, predictions.values(), strict=True))
    _refuse_volumes(truth, prediction)
    if not truths:
        raise UserError(
            f"the folder {truth} has no masks.",
            rule=f"files that end in {', '.join(suffixes(SLICE, EITHER))}.",
        )
    unpaired = [str(truths[n]) for n in sorted(truths.keys() - predictions.keys())]
    unpaired += [
        str(predictions[n]) for n in sorted(predictions.keys() - truths.keys())
    ]
    if unpaired:
        raise UserError(
            f"{pluralize(len(unpaired), 'file')} in {truth} and {prediction} without a "
            f"partner:\n{bullet_list(unpaired)}",
            rule="each true mask has exactly one mask of the same name, and vice versa.",
            remedy="rename the files, or move those without a partner out.",
        )
    return {name: (truths[name], predictions[name]) for name in sorted(truths)}


def _refuse_volumes(*folders: Path) -> None:
    volumes = [
        str(path)
        for folder in folders
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and is_volume(path)
    ]
    if volumes:
        raise UserError(
            f"{pluralize(len(volumes), 'volume')} in folders:\n{bullet_list(volumes)}",
            rule="folders hold single-slice files; volumes are compared pair by pair.",
            remedy="move the volumes out, and compare each pair by itself.",
        )


def _read_files(files: Mapping[str, tuple[Path, Path]]) -> Iterator[NamedMasks]:
    for name, (truth_path, path) in files.items():
        truth, prediction = read_slice_mask(truth_path) > 0, read_slice_mask(path) > 0
        if truth.shape != prediction.shape:
            raise UserError(
                f"{truth_path} has {truth.shape[1]} x {truth.shape[0]} pixels and "
                f"{path} {prediction.shape[1]} x {prediction.shape[0]}.",
                rule="both masks of a slice have its size.",
            )
        yield name, truth, prediction


def _read_volumes(truth: Volume, prediction: Volume) -> Iterator[NamedMasks]:
    for k in range(truth.count):
        masks = [
            as_mask(volume.read(k), f"slice {k} of {volume.name}") > 0
            for volume in (truth, prediction)
        ]
        yield str(k), *masks
