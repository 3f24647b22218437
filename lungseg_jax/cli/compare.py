"""Scores masks, whoever made them, against true ones.

    lungseg compare truth.png mask.png
    lungseg compare --csv=scores.csv 2d_masks/ masks/
    lungseg compare --tolerance=3 truth.nii.gz mask.nii.gz

TRUTH and MASK are two image files, two folders of files with equal names, or two volumes of
one size and geometry. A volume counts as its axial slices, with distances in mm; files
of one slice have no spacing, and distances in pixels.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data.io.formats import (
    EITHER,
    SLICE,
    VOLUME,
    is_dicom,
    is_volume,
    kind_of,
    open_volume,
    read_slice_mask,
    suffixes,
)
from lungseg_jax.data.io.images import as_mask
from lungseg_jax.data.pairs import list_images
from lungseg_jax.evaluation.results import IN_UNIT, METRICS
from lungseg_jax.evaluation.slice_scores import SliceScores
from lungseg_jax.inference.plan import BESIDE
from lungseg_jax.metrics import overlap
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.files import check_outputs, user_path
from lungseg_jax.training.run_folder import write_json, write_text

FLAGS = flags.FLAGS
Masks = tuple[str, np.ndarray, np.ndarray, tuple[float, float] | None]


def compare(pairs: Iterator[Masks], *, tolerance: float) -> dict:
    """Scores of pairs of masks, a slice each.

    Args:
      pairs: name, truth and mask `[h w]` boolean, and their spacing in mm or None.
      tolerance: of NSD, in pixels or mm.

    Returns:
      "unit", "tolerance", "scores" as `overlap.scores`, "pooled_area_error" (of a volume
      that of the volume), "slices" {name: scores}.
    """
    board = SliceScores(tolerance)
    for name, truth, mask, spacing in pairs:
        board.add(name, mask, truth, spacing)
    whole = overlap.area_error(board.counts.sum(axis=0))
    return {
        "unit": board.unit,
        "tolerance": tolerance,
        "scores": board.scores(),
        "pooled_area_error": None if np.isnan(whole) else float(whole),
        "slices": board.slices,
    }


def find(truth: Path, mask: Path) -> tuple[int, Iterator[Masks]]:
    """The number of slices, and them.

    Raises:
      UserError: one is missing, they are of two kinds, or their names, sizes or
        geometries differ.
    """
    for path in (truth, mask):
        if not path.exists():
            raise UserError(f"{path} does not exist.")
    kinds = {_kind(path) for path in (truth, mask)}
    if len(kinds) > 1:
        raise UserError(
            f"{truth} is {_kind(truth)} and {mask} is {_kind(mask)}.",
            rule="two files, two folders or two volumes.",
        )
    if kinds == {"a volume"}:
        with open_volume(truth) as one:
            count = one.count
        return count, _of_volumes(truth, mask)
    if kinds == {"a folder"}:
        files = _of_folders(truth, mask)
        return len(files), _of_files(files)
    return 1, _of_files({truth.name: (truth, mask)})


def _kind(path: Path) -> str:
    if is_volume(path) or is_dicom(path):
        return "a volume"
    return "a folder" if path.is_dir() else "a file"


def _of_folders(truth: Path, mask: Path) -> dict[str, tuple[Path, Path]]:
    truths = list_images(truth)
    masks = {
        name: path
        for name, path in list_images(mask).items()
        if name in truths or not name.endswith(BESIDE)
    }
    volumes = [
        str(path)
        for f in (truth, mask)
        for path in sorted(f.iterdir())
        if kind_of(path) in (VOLUME, EITHER)
    ]
    if volumes:
        raise UserError(
            f"{pluralize(len(volumes), 'volume')} in folders:\n{bullet_list(volumes)}",
            rule="folders have files of one slice; volumes are compared two by two.",
            remedy="move them out, and name them one by one.",
        )
    if not truths:
        raise UserError(
            f"the folder {truth} has no masks.",
            rule=f"files that end in {', '.join(suffixes(SLICE))}.",
        )
    alone = [str(truths[n]) for n in sorted(truths.keys() - masks.keys())]
    alone += [str(masks[n]) for n in sorted(masks.keys() - truths.keys())]
    if alone:
        raise UserError(
            f"{pluralize(len(alone), 'file')} in {truth} and {mask} without a partner:\n"
            f"{bullet_list(alone)}",
            rule="each true mask has a mask of the same name, and none is left over.",
        )
    return {name: (truths[name], masks[name]) for name in sorted(truths)}


def _of_files(files: dict[str, tuple[Path, Path]]) -> Iterator[Masks]:
    for name, (truth, mask) in files.items():
        one, other = read_slice_mask(truth) > 0, read_slice_mask(mask) > 0
        if one.shape != other.shape:
            raise UserError(
                f"{truth} has {one.shape[1]} x {one.shape[0]} pixels and {mask} "
                f"{other.shape[1]} x {other.shape[0]}.",
                rule="both masks of a slice have its size.",
            )
        yield name, one, other, None


def _of_volumes(truth: Path, mask: Path) -> Iterator[Masks]:
    with open_volume(truth) as one, open_volume(mask) as other:
        a, b = one.geometry, other.geometry
        alike = a.size == b.size and all(
            np.allclose(getattr(a, what), getattr(b, what), rtol=1e-4, atol=1e-3)
            for what in ("spacing", "origin", "direction")
        )
        if not alike:
            raise UserError(
                f"{truth} and {mask} have different sizes or geometries:\n  {a}\n  {b}",
                rule="both lie in the same place.",
                remedy="resample one to the other.",
            )
        plane = one.spacing_mm[1:] if one.spacing_mm else None
        for k in range(one.count):
            masks = [
                as_mask(volume.read(k), f"slice {k} of {volume.name}") > 0
                for volume in (one, other)
            ]
            yield str(k), *masks, plane


def format_scores(found: dict) -> str:
    """The scores as a table."""
    scores, unit = found["scores"], found["unit"]
    lines = []
    for key, (label, _) in METRICS.items():
        low, high = scores[f"{key}_ci95"]
        shown = f"{label}, {unit}" if key in IN_UNIT else label
        interval = "" if low is None else f"   {low:.4f} to {high:.4f}"
        value = "-" if scores[key] is None else f"{scores[key]:.4f}"
        lines.append(f"{shown:14}{value:>10}{interval}")
    lines.append(
        f"{pluralize(scores['n'], 'slice')}, {scores['n_both_empty']} empty in both; NSD "
        f"at {found['tolerance']:g} {unit}; 95 % of bootstrap resamples of the slices, which "
        "says too little where they are of one patient"
    )
    if found["pooled_area_error"] is not None:
        lines.append(
            f"all slices together: {found['pooled_area_error']:+.2%} of the area"
        )
    return "\n".join(lines)


def _csv(found: dict) -> str:
    out = io.StringIO()
    columns = ["slice", *next(iter(found["slices"].values()))]
    rows = csv.DictWriter(out, columns, lineterminator="\n")
    rows.writeheader()
    rows.writerows({"slice": n} | row for n, row in found["slices"].items())
    return out.getvalue()


def main(words: list[str]) -> None:
    truth, mask = app.positional(words, ["TRUTH", "MASK"])
    outputs = {
        flag: user_path(FLAGS[flag].value)
        for flag in ("csv", "json")
        if FLAGS[flag].value
    }
    check_outputs(
        list(outputs.values()), inputs=[truth, mask], overwrite=FLAGS.overwrite
    )
    if not math.isfinite(FLAGS.tolerance):
        raise UserError(
            f"--tolerance={FLAGS.tolerance}.", rule="a distance, 0 or more."
        )
    if FLAGS.quiet:
        progress.silence()
    total, pairs = find(truth, mask)
    with progress.bar("comparing", total) as bar:

        def counted_pairs():
            for pair in pairs:
                yield pair
                bar.update()

        found = compare(counted_pairs(), tolerance=FLAGS.tolerance)
    if "csv" in outputs:
        write_text(outputs["csv"], _csv(found))
    if "json" in outputs:
        write_json(outputs["json"], found)
    progress.answer(format_scores(found))


if __name__ == "__main__":
    flags.DEFINE_float("tolerance", 2.0, "Of NSD, in mm or pixels.", lower_bound=0.0)
    flags.DEFINE_string("csv", "", "File for the scores of each slice.")
    flags.DEFINE_string("json", "", "File for all scores.")
    flags.DEFINE_bool("overwrite", False, "Replace these files if they exist.")
    flags.DEFINE_bool("quiet", False, "Show no progress.")
    app.run(main, __doc__, when_interrupted="nothing was written.")
