"""Paths as users type them, and files that appear only when they are complete."""

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.runtime.errors import UserError
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


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, renamed to it at the end.

    Readers see the old file or the complete new one. If the block raises, the temporary
    file is deleted and an existing file is left as it was; only a process that is killed
    leaves it, hidden. Missing parents are created. An object of object storage is written
    at the end, from a temporary file.

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


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror or error}.")
