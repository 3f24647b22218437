"""Paths as users type them, checks of outputs, and files that appear only when complete."""

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.runtime.errors import UserError, bullet_list, pluralize
from lungseg_jax.runtime.object_storage import (
    as_os_errors,
    is_remote,
    remote_path,
    upload,
)
from lungseg_jax.runtime.temporaries import temporary_path, working_folder

# File names in a text need not be valid UTF-8.
_TEXT = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}


def user_path(text: str | os.PathLike[str]) -> Path:
    """Convert `text` to a path, expanding `~` and `~NAME` to a home folder.

    Raises:
      UserError: the user is unknown, the text cannot be a path, or it is an address on
        object storage; see `folder_path`.
    """
    if is_remote(text):
        raise UserError(
            f"{text} is on object storage.",
            rule="this is a path on the machine; only runs, bundles and data folders "
            "have addresses.",
            remedy="copy it with `gcloud storage cp` or `aws s3 cp`.",
        )
    try:
        is_path = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # a lone surrogate, from a recipe
        is_path = False
    if not is_path:
        raise UserError(
            f"{text!r} is not a valid path.", rule="text without zero bytes."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as e:  # raised by pathlib where ~ is undefined
        raise UserError(
            f"the home folder in {text} is unknown.",
            rule="~ is the folder that HOME names, ~NAME is that of a user.",
            remedy="write the path out, or set HOME.",
        ) from e


def missing_path(path: Path) -> UserError:
    """Return the error for an input that does not exist."""
    return UserError(
        f"{path} does not exist.",
        remedy=f"check its path; a relative one starts at {Path.cwd()}.",
    )


def folder_path(text: str | os.PathLike[str]) -> Path:
    """Convert what names a run, a bundle or a data folder to a path.

    Returns:
      A path on this machine, or an `epath.Path` for gs:// and s3://.

    Raises:
      UserError: see `user_path` and `remote_path`.
    """
    return remote_path(text) if is_remote(text) else user_path(text)


def require_utf8(path: Path) -> str:
    """Return a path as text for SimpleITK, which aborts the process on other names.

    Raises:
      UserError: the name is not valid UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise UserError(
            f"the name {path} is not valid UTF-8.",
            rule="names of volumes and DICOM files are UTF-8.",
            remedy="rename it.",
        ) from e
    return str(path)


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


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, renamed to it at the end.

    Readers see the old file or the complete new one. If the block raises, the temporary
    file is deleted and an existing file is left as it was. Missing parents are created.
    An object of object storage is written at the end, from a temporary file.

    Raises:
      UserError: the file cannot be written (any OSError of the block).
    """
    if is_remote(path):
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield (temporary := Path(folder, path.name))
                upload(temporary, path)
        except OSError as e:
            raise _unwritable(path, e) from e
        return
    temporary = temporary_path(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # its parent may not exist
                temporary.unlink(missing_ok=True)
    except OSError as e:
        raise _unwritable(path, e) from e


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, renamed to it at the end.

    If the block raises, the folder and all its files are deleted.

    Raises:
      UserError: the folder cannot be written (any OSError of the block).
    """
    try:
        with working_folder(path) as temporary:
            yield temporary
            os.rename(temporary, path)
    except OSError as e:
        raise _unwritable(path, e) from e


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append to a UTF-8 text file, which is created if it does not exist."""
    try:
        with path.open("a", **_TEXT) as file:
            file.write(text)
    except OSError as e:
        raise _unwritable(path, e) from e


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with as_os_errors():
            content = path.read_bytes()
        return json.loads(content.decode())
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}.") from e
    except (ValueError, RecursionError) as e:
        raise UserError(
            f"{path} is damaged: {e}.", remedy="restore it from a copy."
        ) from e


@contextlib.contextmanager
def csv_writer(
    path: Path, columns: Sequence[str], *, append: bool = False
) -> Iterator[csv.DictWriter]:
    """Yield a writer of rows by column; the file, with its header, appears at the end.

    With `append`, the rows are added to a file that exists.

    Raises:
      UserError: the file cannot be written.
    """
    if append:
        rows = io.StringIO()
        yield csv.DictWriter(rows, columns, lineterminator="\n")
        append_text(path, rows.getvalue())
        return
    with atomic_write(path) as temporary, temporary.open("w", **_TEXT) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        yield writer


def _identities(path: Path) -> set:
    """Return what a path has in common with other names of the same file.

    Its inode too: some file systems do not distinguish between upper and lower case.
    """
    identities = {os.path.realpath(path)}
    with contextlib.suppress(OSError):
        status = os.stat(path)
        identities.add((status.st_dev, status.st_ino))
    return identities


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror or error}.")
