"""Maps inputs to output files and validates all of them before writing any."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import (
    EITHER,
    FORMATS,
    SLICE,
    VOLUME,
    format_of,
    is_volume,
    kind_of,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.segments import DICOM_SEGMENTATION
from lungseg_jax.data.io.unsupported import remedy_for
from lungseg_jax.inference.inputs import Input, find_inputs
from lungseg_jax.inference.prediction_task import PredictionTask, split_target
from lungseg_jax.runtime.errors import UserError, combine_errors
from lungseg_jax.runtime.extras import require_library
from lungseg_jax.runtime.outputs import check_outputs, require_outside

INDEX = "index.html"  # of the pages of several volumes
DICOM_MASK_SUFFIX = ".nii.gz"  # unless the output names another format
LONGEST_UID = 64  # of the DICOM standard, part 5, section 9.1


def plan_outputs(
    source: Path,
    target: Path,
    *,
    format: str = "",
    series: str = "",
    maps: Sequence[str] = (),
    overlay: bool = False,
    extra_outputs: Sequence[Path] = (),
    overwrite: bool = False,
) -> list[PredictionTask]:
    """Return a validated task for each input.

    Args:
      source: a file, the folder of a DICOM series, or a folder of such files and folders.
        Volumes and series are found at any depth below it, slices only in it.
      target: a file for a single input, otherwise a folder, in which the masks are where
        their inputs are in `source`.
      format: suffix of the masks in a folder, by default that of their inputs.
      series: UID of the DICOM series to read; by default, each of them in a folder of
        folders.
      maps: keys of `MAPS` to save as further images.
      overlay: whether to save a picture of each mask on its image, and a page of each
        volume.
      extra_outputs: further files that the command writes.
      overwrite: whether outputs may exist already.

    Raises:
      UserError: there is no input, an output exists or cannot have its format, or an
        output is also an input or in the folder of the inputs.
    """
    if format and not format.startswith("."):
        format = f".{format}"
    known = (*suffixes(writable=True), DICOM_SEGMENTATION)
    if format and format not in known:
        raise UserError(
            f"the format {format} is unknown.", rule=f"one of {', '.join(known)}."
        )
    if source.is_dir():
        # Masks among the inputs would be segmented by the next run.
        require_outside((target, *extra_outputs), [source])
    inputs = find_inputs(source, series)
    if [found.path for found in inputs] == [source]:
        tasks = [_plan_input(source, _mask_of(source, target, format), series)]
    else:
        tasks = _plan_folder(inputs, source, target, format, series)
    tasks = [task.with_companions(maps, overlay=overlay) for task in tasks]
    _refuse_shared_outputs(tasks, source)
    check_outputs(
        [
            *(path for task in tasks for path in task.outputs),
            *filter(None, [index_of(tasks, target)]),
            *extra_outputs,
        ],
        inputs=[task.source for task in tasks],
        overwrite=overwrite,
    )
    return tasks


def index_of(tasks: Sequence[PredictionTask], target: Path) -> Path | None:
    """Return the page that links to those of the tasks, if there are several."""
    pages = [task.page for task in tasks if task.page]
    return target / INDEX if len(pages) > 1 else None


def require_table(
    tasks: Sequence[PredictionTask],
    target: Path,
    *,
    csv: Path | None,
    json: Path | None,
) -> None:
    """Refuse to resume without the table that has the results of masks that are kept.

    Args:
      tasks: of `plan_outputs`.
      target: that was given to it.
      csv: the table, or None.
      json: file for the results of all tasks, or None.

    Raises:
      UserError: there is no table, so the JSON file or the page would be incomplete.
    """
    index = index_of(tasks, target)
    if csv is None and (json or index):
        raise UserError(
            f"{'--json' if json else '--overlay'} with --resume needs --csv.",
            rule=f"for masks that are kept, {json or index} takes its results from the "
            "table.",
            remedy="name the table of the command that is resumed.",
        )


def _plan_folder(
    inputs: Sequence[Input], source: Path, target: Path, format: str, series: str
) -> Iterator[PredictionTask]:
    """Plan inputs in a folder; their masks are in the target, where they are in it."""
    if split_target(target)[1]:
        raise UserError(
            f"{source} is a folder, but {target} names a single file.",
            rule="each slice, volume and series in it, and below, has a mask.",
            remedy="name a folder for the masks.",
        )
    for path, uid, is_damaged in inputs:
        folder = target / path.relative_to(source).parent
        if is_damaged:
            yield PredictionTask(path, _mask_in(folder, path, ""), is_volume=True)
            continue
        mask = _mask_in(folder, path, format)
        if uid:
            stem, suffix = split_target(mask)
            mask = folder / stem / f"{_as_name(uid)}{suffix}"
        yield _plan_input(path, mask, uid or series)


def _as_name(uid: str) -> str:
    """Return the name of a mask for a UID, which a file can hold in any form.

    It may not lead out of the folder, nor be hidden.
    """
    return re.sub(r"[^\w.-]", "_", uid).lstrip(".")[:LONGEST_UID] or "_"


def _refuse_shared_outputs(tasks: Sequence[PredictionTask], source: Path) -> None:
    """Refuse inputs with an output in common, such as the overlay of a.mha and a.nrrd."""
    owners: dict[str, str] = {}
    faults: dict[tuple[str, str], UserError] = {}
    for task in tasks:
        for path in task.outputs:
            owner = owners.setdefault(os.path.realpath(path), task.name)
            if owner != task.name and (owner, task.name) not in faults:
                faults[owner, task.name] = UserError(
                    f"{owner} and {task.name} would both be written to {path}.",
                    rule="each output belongs to one input.",
                    remedy="rename one of the inputs, or predict it into another folder.",
                )
    if faults:
        raise combine_errors([*faults.values()], str(source))


def _mask_of(source: Path, target: Path, format: str) -> Path:
    """Return the path of the mask of a single input.

    It is in the target if that exists as a folder, or if it does not exist and has no
    suffix.
    """
    if target.is_dir() or not target.suffix and not target.exists():
        return _mask_in(target, source, format)
    if format:
        raise UserError(
            f"--format={format} cannot be combined with the output file {target}.",
            rule="the suffix of an output file sets its format.",
            remedy="leave --format out, or name a folder for the mask.",
        )
    return target


def _mask_in(folder: Path, source: Path, format: str) -> Path:
    """Return the path of a mask in a folder, where it has the name of its input."""
    stem, _ = split_suffix(source)
    if source.is_file():
        stem = split_target(source)[0]  # without .dcm
    suffix = format or _usual_suffix(source) or DICOM_MASK_SUFFIX
    return folder / f"{stem or source.resolve().name}{suffix}"


def _usual_suffix(source: Path) -> str:
    """Return the suffix of the mask of an input, or "" if its name does not tell."""
    suffix = split_suffix(source)[1]
    return suffix and (FORMATS[suffix].mask_suffix or suffix)


def _plan_input(source: Path, target: Path, series: str) -> PredictionTask:
    suffix = split_target(target)[1]
    as_volume, allowed = _allowed_masks(source, suffix)
    if suffix not in allowed:
        if suffix == DICOM_SEGMENTATION:
            raise UserError(
                f"{source} is not DICOM, as the source of {target} must be.",
                remedy="name another format, such as .seg.nrrd.",
            )
        raise UserError(
            f"the mask of {source} cannot be {target}.",
            rule=f"a file that ends in {' or '.join(allowed)}, or a folder.",
            remedy=_suggested_name(source, target, allowed),
        )
    if suffix == DICOM_SEGMENTATION:
        require_library(
            "highdicom",
            extra="dicom",
            needed_by=f"the DICOM segmentation {target}",
            otherwise="name another format, such as .nii.gz.",
        )
    return PredictionTask(source, target, is_volume=as_volume, series=series)


def _allowed_masks(source: Path, suffix: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether an input is segmented as a volume, and the suffixes of its mask.

    A DICOM file is a slice if its mask, with this suffix, is one.
    """
    slices = suffixes(SLICE, EITHER, writable=True)
    volumes = suffixes(VOLUME, EITHER, writable=True)
    placed = tuple(s for s in volumes if FORMATS[s].has_geometry)
    if source.is_dir():
        return True, (*placed, DICOM_SEGMENTATION)
    if is_volume(source):
        if format_of(source).has_geometry:
            return True, placed
        return True, tuple(s for s in volumes if s not in placed)
    if kind_of(source):
        return False, slices
    if is_dicom(source):
        return suffix not in slices, (*suffixes(writable=True), DICOM_SEGMENTATION)
    if not source.stat().st_size:
        raise UserError(f"{source} is empty.", remedy="copy it again.")
    remedy = remedy_for(source)
    raise UserError(
        f"the input {source} is not in a known format.",
        rule=f"one of {', '.join(suffixes())}, or DICOM, whose files have DICM at "
        "byte 128.",
        remedy=f"{remedy}." if remedy else "",
    )


def _suggested_name(source: Path, target: Path, allowed: Sequence[str]) -> str:
    """Say how to name a mask: with the suffix of its input, where that is allowed."""
    usual = (_usual_suffix(source), DICOM_MASK_SUFFIX, *allowed)
    suffix = next(suffix for suffix in usual if suffix in allowed)
    stem, known = split_target(target)
    name = target.with_name(f"{stem if known else target.stem}{suffix}")
    return f"name it {name}; for the masks in a folder, --format={suffix}."
