"""Checks of the files and folders that a command is to write, before it does any work."""

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.temporaries import LONGEST_NAME


def check_outputs(
    files: Sequence[Path],
    *,
    folders: Sequence[Path] = (),
    inputs: Sequence[Path],
    overwrite: bool,
    remedy: str = "name another output, or pass --overwrite.",
) -> None:
    """Check that a command may write these files, and files into these folders.

    Args:
      files: files that the command creates.
      folders: folders that it creates.
      inputs: files and folders that it reads.
      overwrite: whether outputs may exist already.
      remedy: what to do if they may not, and do.

    Raises:
      UserError: an output is an input or inside one, two outputs are the same file, or
        one exists or cannot be created.
    """
    outputs = [*files, *folders]
    require_outside(outputs, inputs)
    _refuse_repeated(outputs)
    _refuse_long_names(outputs)
    _refuse_other_kinds(files, folders)
    for parent in dict.fromkeys(path.parent for path in outputs):
        check_writable(parent)
    if not overwrite:
        # A file replaces a link to nothing; a folder cannot be made in its place.
        existing = [path for path in files if path.exists()]
        existing += [path for path in folders if os.path.lexists(path)]
        _refuse_existing(existing, remedy)


def require_outside(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that no output is an input or inside one, at any depth, under any name.

    Raises:
      UserError: one is; it names both.
    """
    read = {identity: path for path in inputs for identity in _identities(path)}
    identities = functools.cache(_identities)  # many outputs share a few folders
    for path in outputs:
        # Both where a link is and where it leads: a file replaces it, a folder is entered.
        reals = [Path(os.path.realpath(place)) for place in (path, path.parent)]
        places = {place for real in reals for place in (real, *real.parents)}
        found = set().union(*map(identities, places)) & read.keys()
        if found:
            raise _not_outside(path, read[found.pop()])


def check_writable(
    folder: Path,
    *,
    remedy: str = "name an output elsewhere, or change its permissions.",
) -> None:
    """Check that a folder is writable, or can be created.

    Raises:
      UserError: it is not, or cannot be.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        is_dangling = existing.is_symlink() and not existing.exists()
        what = "a link to nothing" if is_dangling else "not a folder"
        raise UserError(
            f"{folder} cannot be created: {existing} is {what}.", remedy=remedy
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing} is not writable.", remedy=remedy)


def _not_outside(path: Path, source: Path) -> UserError:
    if source.is_dir():
        return UserError(
            f"{path} is not outside of the input folder {source}.",
            rule="nothing is written among the inputs.",
            remedy=f"name an output outside of {source}.",
        )
    return UserError(
        f"{path} would overwrite the input {source}.",
        rule="inputs are left as they are.",
        remedy="name an output elsewhere.",
    )


def _refuse_repeated(outputs: Sequence[Path]) -> None:
    counts = Counter(os.path.realpath(path) for path in outputs)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise UserError(
            f"two outputs have one name: {', '.join(repeated[:3])}.",
            rule="each output is a file of its own.",
            remedy="name another output.",
        )


def _refuse_long_names(outputs: Sequence[Path]) -> None:
    for path in outputs:
        if (size := len(os.fsencode(path.name))) > LONGEST_NAME:
            raise UserError(
                f"{path.name} would be a name of {size} bytes.",
                rule=f"at most {LONGEST_NAME}, on most file systems.",
                remedy="a shorter name for the input, or for the output.",
            )


def _refuse_other_kinds(files: Sequence[Path], folders: Sequence[Path]) -> None:
    """Refuse folders in the place of files, files in that of folders, and devices."""
    folder_for_file = [(path, "folder", "file") for path in files if path.is_dir()]
    file_for_folder = [(path, "file", "folder") for path in folders if path.is_file()]
    for path, is_a, must_be in folder_for_file + file_for_folder:
        raise UserError(
            f"{path} is a {is_a}.",
            rule=f"the output is a {must_be}.",
            remedy="name another output.",
        )
    for path in files:
        if path.exists() and not path.is_file():
            raise UserError(
                f"{path} is a device or a pipe.",
                rule="an output is a file, which is replaced when the new one is complete.",
                remedy="name a file.",
            )


def _refuse_existing(existing: Sequence[Path], remedy: str) -> None:
    if existing:
        raise UserError(
            f"{pluralize(len(existing), 'output')} already there:\n"
            f"{bullet_list(list(map(str, existing)))}",
            remedy=remedy,
        )


def _identities(path: Path) -> set:
    """Return what a path has in common with other names of the same file.

    Its inode too: some file systems do not distinguish between upper and lower case.
    """
    identities = {os.path.realpath(path)}  # unlike Path.resolve, circular links too
    with contextlib.suppress(OSError):
        status = os.stat(path)
        identities.add((status.st_dev, status.st_ino))
    return identities
