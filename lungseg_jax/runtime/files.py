"""Paths as users type them: what they mean, and whether they may be written to."""

import os
from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize


def user_path(text: str | os.PathLike[str]) -> Path:
    """`text` as a path, with `~` and `~NAME` for a home folder.

    Raises:
      UserError: there is no such user, or the text cannot be a path.
    """
    try:
        is_path = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character, out of a recipe
        is_path = False
    if not is_path:
        raise UserError(f"{text!r} is no path.", rule="text without zero bytes.")
    try:
        return Path(text).expanduser()
    except RuntimeError as e:  # of pathlib, where nothing says what ~ is
        raise UserError(
            f"the home folder in {text} is not known.",
            rule="~ is the folder that HOME names, ~NAME that of a user.",
            remedy="write the path out.",
        ) from e


def text_of(path: Path) -> str:
    """A path for SimpleITK, which ends the process where a name is no UTF-8.

    Raises:
      UserError: it is none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise UserError(
            f"the name {path} is no UTF-8.",
            rule="names of volumes and DICOM files are text.",
            remedy="rename it.",
        ) from e
    return str(path)


def check_outputs(
    files: Sequence[Path],
    *,
    folders: Sequence[Path] = (),
    inputs: Sequence[Path],
    overwrite: bool,
) -> None:
    """Whether a command may write these files, and files into these folders.

    Args:
      files: that it makes.
      folders: that it makes.
      inputs: files and folders that it reads.
      overwrite: outputs may exist.

    Raises:
      UserError: one is an input or lies directly in one, two are one, one exists or
        cannot be made there.
    """
    realpath = os.path.realpath  # unlike Path.resolve, of links in a circle as well
    read, outputs = {realpath(path) for path in inputs}, [*files, *folders]
    for path in outputs:
        if any(realpath(above) in read for above in (path, path.parent)):
            raise UserError(f"{path} would be written over, or into, an input.")
    names, twice = set(), set()
    for path in outputs:
        (twice if realpath(path) in names else names).add(realpath(path))
    if twice:
        raise UserError(
            f"two outputs have one name: {', '.join(sorted(twice)[:3])}.",
            rule="each output is a file of its own.",
            remedy="name another output, or rename the inputs.",
        )
    for path in files:
        if path.is_dir():
            raise UserError(
                f"{path} is a folder.",
                rule="the output is a file.",
                remedy="rename it.",
            )
    for parent in dict.fromkeys(path.parent for path in outputs):
        _check_writable(parent)
    there = [str(path) for path in outputs if path.exists()]
    if there and not overwrite:
        raise UserError(
            f"{pluralize(len(there), 'output')} already there:\n{bullet_list(there)}",
            remedy="name another output, or pass --overwrite.",
        )


def _check_writable(folder: Path) -> None:
    """Whether a folder is there and may be written to, or can be made."""
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(
            f"{folder} cannot be made: {existing} is no folder.",
            remedy="name another output.",
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{existing} may not be written to.",
            remedy="name an output elsewhere, or change its permissions.",
        )
