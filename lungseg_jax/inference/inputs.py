"""Finds the inputs of a prediction, and prints what is skipped."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lungseg_jax.data.io.dicom_files import is_dicom, may_be_dicom
from lungseg_jax.data.io.formats import (
    EITHER,
    VOLUME,
    format_of,
    is_volume,
    kind_of,
    series_uids,
    suffixes,
)
from lungseg_jax.data.io.unsupported import and_more, remedy_for, say_skipped
from lungseg_jax.data.pairs import list_images
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.files import missing_path

LISTED = 5  # folders that an error lists


class Input(NamedTuple):
    """A slice, a volume or a DICOM series.

    Attributes:
      path: a file, or the folder of the series.
      series: the UID, if it is one of several in its folder.
      is_damaged: whether it cannot be read: that is reported when it is predicted.
    """

    path: Path
    series: str = ""
    is_damaged: bool = False


def find_inputs(source: Path, series: str) -> list[Input]:
    """Return the inputs that a file or a folder holds.

    Volumes and series are found at any depth below a folder, slices only in it. A folder of
    DICOM files, with nothing below it, is itself the only input: its series is chosen when
    it is read.

    Args:
      source: a file or a folder.
      series: UID of the DICOM series to which a folder is limited, or "".

    Raises:
      UserError: no input was found, or a folder mixes a DICOM series with other images.
    """
    if not source.is_dir():
        _check_file(source, series)
        return [Input(source)]
    files, folders = _list_entries(source)
    below = list(_find_below(folders, series))
    own = []
    if _is_series(source, files):
        own = _find_series(source, series) if folders else [Input(source)]
    elif not series:
        _say_unknown(source, files)
    if own:
        _refuse_mixed_series(source, files)
        if not below:
            return [Input(source)]
    elif not series:
        own = _find_images(source, files)
    if not own and not below:
        raise _nothing_in(source, folders, series)
    return own + below


def _find_below(folders: Sequence[Path], series: str) -> Iterator[Input]:
    """Find the DICOM series and volumes in these folders and below.

    Links below them are not followed: they may lead in a circle.
    """
    for folder in folders:
        files, deeper = _list_entries(folder)
        if _is_series(folder, files):
            yield from _find_series(folder, series)
        elif not series:
            _say_unknown(folder, files)
        if not series:
            yield from _find_volumes(files)
        links = [path for path in deeper if path.is_symlink()]
        for path in links:
            progress.say(f"skipped: {path}: link to a folder")
        yield from _find_below([path for path in deeper if path not in links], series)


def _find_series(folder: Path, series: str) -> list[Input]:
    """Find the chosen series, or every one."""
    try:
        uids = series_uids(folder)
    except UserError:  # it is raised again when the folder is read
        return [Input(folder)]
    if series:
        uids = [uid for uid in uids if uid == series]
    return [Input(folder)] if len(uids) == 1 else [Input(folder, uid) for uid in uids]


def _find_images(folder: Path, files: Sequence[Path]) -> list[Input]:
    """Find the slices and volumes among the files of a folder."""
    volumes = [path for path in files if kind_of(path) in (VOLUME, EITHER)]
    return [Input(path) for path in (*list_images(folder).values(), *volumes)]


def _find_volumes(files: Sequence[Path]) -> Iterator[Input]:
    """Find the volumes among the files of a folder below."""
    for path in files:
        try:
            if is_volume(path):
                yield Input(path)
        except UserError:  # it is raised again when the file is read, and skipped there
            yield Input(path, is_damaged=True)


def _check_file(source: Path, series: str) -> None:
    if not source.exists():
        raise missing_path(source)
    if not source.is_file():
        raise UserError(
            f"the input {source} is not a regular file.",
            remedy="name a file or a folder; copy what a pipe delivers into a file.",
        )
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


def _nothing_in(source: Path, folders: Sequence[Path], series: str) -> UserError:
    if series:
        return UserError(
            f"{source} has no series {series}, nor have its subfolders.",
            rule="--series is the UID of a series there.",
            remedy="leave it out for a mask of each series.",
        )
    names = ", ".join(folder.name for folder in folders[:LISTED])
    return UserError(
        f"the folder {source} contains no images.",
        rule=f"files that end in {', '.join(suffixes())}, or DICOM files.",
        remedy=f"name one of its subfolders ({names})." if folders else "",
    )


def _list_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files and the folders in a folder; segmentations are left out."""
    paths = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    # A dead link, as of git-annex, is an unreadable scan, not a missing one.
    files = [p for p in paths if p.is_file() or not p.exists()]
    segmentations = [p for p in files if kind_of(p) and format_of(p).add_segments]
    for path in segmentations:
        progress.say(f"skipped: {path}: segmentation")
    files = [p for p in files if p not in segmentations]
    return files, [p for p in paths if p.is_dir()]


def _is_series(folder: Path, files: Sequence[Path]) -> bool:
    """Whether the files of a folder are DICOM, or perhaps were: some are dead links."""
    if is_dicom(folder):
        return True
    is_dead = any(may_be_dicom(path) and not path.exists() for path in files)
    return is_dead and not any(map(kind_of, files))


def _say_unknown(folder: Path, files: Sequence[Path]) -> None:
    """Print a line if a folder is empty, or images may be among what is left out of it."""
    unknown = [p for p in files if not kind_of(p) and may_be_dicom(p)]
    images = [p for p in unknown if remedy_for(p)]
    say_skipped(images)
    if images:
        return
    if unknown and not any(map(kind_of, files)):
        first = unknown[0].name
        progress.say(f"skipped: {folder}: {first}{and_more(unknown)}: unknown format")
    elif all(path.name.startswith(".") for path in folder.iterdir()):
        progress.say(f"skipped: {folder}: empty")
