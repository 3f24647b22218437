"""Hidden files and folders beside an output, for the time in which it is written.

They are left behind only by a process that is killed.
"""

import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.(.+)", re.DOTALL)  # a name of `temporary_path`
LONGEST_NAME = 255  # bytes, on most file systems


def temporary_path(path: Path) -> Path:
    """Return a hidden path beside `path`, with its suffix, that nothing else uses."""
    return path.with_name(f".{uuid.uuid4().hex[:8]}.{_end_of_name(path)}")


def _end_of_name(path: Path) -> str:
    """Return as much of the end of a name as is left beside the mark of a temporary."""
    name = path.name
    while len(os.fsencode(name)) > LONGEST_NAME - len(".12345678."):
        name = name[1:]
    return name


@contextlib.contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to write it in, deleted at the end.

    A process that is killed leaves it. It is deleted when `path` is written again: a lock
    tells it from that of a process which still writes. Missing parents are created.

    Raises:
      OSError: it cannot be created.
    """
    folder = temporary_path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = _end_of_name(path)
    for other in folder.parent.glob(".*"):
        name = _TEMPORARY.fullmatch(other.name)
        if name and name[1] == wanted and other.is_dir() and not other.is_symlink():
            with contextlib.suppress(OSError), _locked(other):
                shutil.rmtree(other)
    unlocked = path.with_name(f".{uuid.uuid4().hex}")  # not a name that others look for
    unlocked.mkdir()
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks
                stack.enter_context(_locked(unlocked))
            unlocked.rename(folder)
            yield folder
    finally:
        for left in (unlocked, folder):
            shutil.rmtree(left, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Delete what `files.atomic_write` has left in a folder where it was killed.

    No other process may write there.
    """
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
      OSError: another process holds the lock, or the file system does not support locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
