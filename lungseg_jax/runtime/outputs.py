"""Checks of the files and folders that a command is to write, before it does any work."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize


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
    realpath = os.path.realpath  # unlike Path.resolve, it accepts circular links
    read, outputs = set().union(*map(_identities, inputs)), [*files, *folders]
    for path in outputs:
        if read & (_identities(path) | _identities(path.parent)):
            raise UserError(
                f"{path} would overwrite an input, or add a file to it.",
                rule="inputs are left as they are.",
                remedy="name an output elsewhere.",
            )
    names, repeated = set(), set()
    for path in outputs:
        (repeated if realpath(path) in names else names).add(realpath(path))
    if repeated:
        raise UserError(
            f"two outputs have one name: {', '.join(sorted(repeated)[:3])}.",
            rule="each output is a file of its own.",
            remedy="name another output.",
        )
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
    for parent in dict.fromkeys(path.parent for path in outputs):
        check_writable(parent)
    existing = [str(path) for path in outputs if path.exists()]
    if existing and not overwrite:
        raise UserError(
            f"{pluralize(len(existing), 'output')} already there:\n"
            f"{bullet_list(existing)}",
            remedy=remedy,
        )


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


def _identities(path: Path) -> set:
    """Return what a path has in common with other names of the same file.

    Its inode too: some file systems do not distinguish between upper and lower case.
    """
    identities = {os.path.realpath(path)}
    with contextlib.suppress(OSError):
        status = os.stat(path)
        identities.add((status.st_dev, status.st_ino))
    return identities
