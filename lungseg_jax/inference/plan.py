"""Maps inputs to output files and validates all of them before writing any."""

import os
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
    series_uids,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.segments import DICOM_SEGMENTATION
from lungseg_jax.data.pairs import list_images
from lungseg_jax.inference.input_folder import (
    SAVE_AS,
    UNSUPPORTED,
    is_series,
    list_entries,
    say_unknown,
)
from lungseg_jax.inference.prediction_task import PredictionTask, split_target
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize
from lungseg_jax.runtime.extras import require_library
from lungseg_jax.runtime.files import check_outputs, missing_path

INDEX = "index.html"  # of the pages of several volumes
DICOM_MASK_SUFFIX = ".nii.gz"  # unless the output names another format
LISTED = 5  # folders that an error lists


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
        _refuse_inside(source, target)
        tasks = _plan_folder(source, target, format, series)
    else:
        _check_file(source)
        _refuse_series(source, series)
        tasks = [_plan_single(source, target, format, "")]
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


def _plan_single(
    source: Path, target: Path, format: str, series: str
) -> PredictionTask:
    return _plan_input(source, _mask_path(source, target, format), series)


def _plan_folder(
    source: Path, target: Path, format: str, series: str
) -> list[PredictionTask]:
    """Plan what is in a folder and below; only a series by itself is a single input."""
    files, folders = list_entries(source)
    below = list(_plan_below(folders, target, format, series))
    has_series = is_series(source, files)
    if has_series and not folders:
        _refuse_mixed_series(source, files)
        return [_plan_single(source, target, format, series)]
    own = list(_plan_series(source, target, format, series)) if has_series else []
    if own:
        _refuse_mixed_series(source, files)
        if not below:
            return [_plan_single(source, target, format, series)]
    if split_target(target)[1]:
        raise UserError(
            f"{source} is a folder, but {target} names a single file.",
            rule="each slice, volume and series in it, and below, has a mask.",
            remedy="name a folder for the masks.",
        )
    if not series:
        if not has_series:
            say_unknown(source, files)
        own = own or _plan_images(source, files, target, format)
    elif not own and not below:
        raise UserError(
            f"{source} has no series {series}, nor have its subfolders.",
            rule="--series is the UID of a series there.",
            remedy="leave it out for a mask of each series.",
        )
    if not own and not below:
        names = ", ".join(folder.name for folder in folders[:LISTED])
        raise UserError(
            f"the folder {source} contains no images.",
            rule=f"files that end in {', '.join(suffixes())}, or DICOM files.",
            remedy=f"name one of its subfolders ({names})." if folders else "",
        )
    return own + below


def _plan_images(
    source: Path, files: Sequence[Path], target: Path, format: str
) -> list[PredictionTask]:
    """Plan the slices and volumes among the files of a folder."""
    images = list(list_images(source).values())
    images += [path for path in files if kind_of(path) in (VOLUME, EITHER)]
    masks = [_mask_path(path, target, format, in_folder=True) for path in images]
    return [_plan_input(*pair) for pair in zip(images, masks, strict=True)]


def _plan_below(
    folders: Sequence[Path], target: Path, format: str, series: str
) -> Iterator[PredictionTask]:
    """Plan the DICOM series and volumes in these folders and below."""
    for folder in folders:
        files, deeper = list_entries(folder)
        if is_series(folder, files):
            yield from _plan_series(folder, target, format, series)
        elif not series:
            say_unknown(folder, files)
        if not series:
            yield from _plan_volumes(files, target / folder.name, format)
        deeper = [path for path in deeper if not path.is_symlink()]  # no circles
        yield from _plan_below(deeper, target / folder.name, format, series)


def _plan_volumes(
    files: Sequence[Path], target: Path, format: str
) -> Iterator[PredictionTask]:
    """Plan the volumes among the files of a folder below."""
    for path in files:
        try:
            if not is_volume(path):
                continue
        except UserError:  # it is raised again when the file is read, and skipped there
            mask = _mask_path(path, target, "", in_folder=True)
            yield PredictionTask(path, mask, is_volume=True)
        else:
            yield _plan_input(path, _mask_path(path, target, format, in_folder=True))


def _plan_series(
    folder: Path, target: Path, format: str, series: str
) -> Iterator[PredictionTask]:
    """Plan the chosen series, or every one.

    If there is only one, its mask is named after the folder.
    """
    mask = _mask_path(folder, target, format, in_folder=True)
    try:
        uids = series_uids(folder)
    except UserError:  # it is raised again when the folder is read
        uids = [series]
    if series:
        uids = [uid for uid in uids if uid == series]
    if len(uids) == 1:
        yield _plan_input(folder, mask, series)
        return
    stem, suffix = split_target(mask)
    for uid in uids:
        yield _plan_input(folder, target / stem / f"{uid}{suffix}", uid)


def _refuse_inside(source: Path, target: Path) -> None:
    """Refuse masks in the folder of their inputs: the next run would segment them."""
    inside = Path(os.path.realpath(target))  # unlike Path.resolve, circular links too
    if inside.is_relative_to(os.path.realpath(source)):
        raise UserError(
            f"{target} is not outside of the input folder {source}.",
            rule="masks are not among their inputs, where the next run would find them.",
            remedy=f"name an output outside of {source}.",
        )


def _check_file(source: Path) -> None:
    if not source.exists():
        raise missing_path(source)
    if not source.is_file():
        raise UserError(f"the input {source} is not a regular file.")


def _refuse_series(source: Path, series: str) -> None:
    if series:
        raise UserError(
            f"--series={series} has no effect on the file {source}.",
            rule="it chooses a DICOM series in a folder.",
            remedy="leave it out, or name the folder.",
        )


def _refuse_mixed_series(folder: Path, files: Sequence[Path]) -> None:
    """Refuse other images among the files of a DICOM series: they would be skipped."""
    images = [path.name for path in files if kind_of(path)]
    if images:
        raise UserError(
            f"{folder} contains DICOM files and {pluralize(len(images), 'other image')}, "
            f"such as {images[0]}.",
            rule="a folder holds either the files of a DICOM series or other images.",
            remedy="move the DICOM files or the other images into a separate folder.",
        )


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


def _mask_path(
    source: Path, target: Path, format: str, *, in_folder: bool = False
) -> Path:
    """Return the path of a mask.

    The target is a folder, in which the mask has the name of its input, if it exists as
    one, or if it does not exist and has no suffix.
    """
    stem, suffix = split_suffix(source)
    if source.is_file():
        stem = split_target(source)[0]  # without .dcm
    if in_folder or target.is_dir() or not target.suffix and not target.exists():
        suffix = format or suffix or DICOM_MASK_SUFFIX
        return target / f"{stem or source.resolve().name}{suffix}"
    if format:
        raise UserError(
            f"--format={format} cannot be combined with the output file {target}.",
            rule="the suffix of an output file sets its format.",
            remedy="leave --format out, or name a folder for the mask.",
        )
    return target


def _plan_input(source: Path, target: Path, series: str = "") -> PredictionTask:
    suffix = split_target(target)[1]
    slices = suffixes(SLICE, EITHER, writable=True)
    volumes = suffixes(VOLUME, EITHER, writable=True)
    if source.is_dir():
        as_volume, allowed = True, (*volumes, DICOM_SEGMENTATION)
    elif is_volume(source):
        as_volume, allowed = True, volumes
        if not format_of(source).has_geometry:
            allowed = tuple(s for s in volumes if not FORMATS[s].has_geometry)
    elif kind_of(source):
        as_volume, allowed = False, slices
    elif is_dicom(source):
        as_volume = suffix not in slices
        allowed = (*suffixes(writable=True), DICOM_SEGMENTATION)
    else:
        if not source.stat().st_size:
            raise UserError(f"{source} is empty.", remedy="copy it again.")
        is_image = source.name.lower().endswith(UNSUPPORTED)
        raise UserError(
            f"the input {source} is not in a known format.",
            rule=f"one of {', '.join(suffixes())}, or DICOM, whose files have DICM at "
            "byte 128.",
            remedy=f"{SAVE_AS}." if is_image else "",
        )
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


def _suggested_name(source: Path, target: Path, allowed: Sequence[str]) -> str:
    """Say how to name a mask: with the suffix of its input, where that is allowed."""
    usual = (split_suffix(source)[1], DICOM_MASK_SUFFIX, *allowed)
    suffix = next(suffix for suffix in usual if suffix in allowed)
    stem, known = split_target(target)
    name = target.with_name(f"{stem if known else target.stem}{suffix}")
    return f"name it {name}; for the masks in a folder, --format={suffix}."
