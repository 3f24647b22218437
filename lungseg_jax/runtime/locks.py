"""Locks on files, for processes that share a folder."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from lungseg_jax.runtime import progress

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of some shared file systems


@contextlib.contextmanager
def exclusive_lock(file: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; a killed process releases it.

    A file system without locks is only warned about.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting for another process that holds {file}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as e:
            if e.errno not in NO_LOCKS:
                raise
            progress.say(
                f"WARNING: the file system of {file.parent} has no locks. Two commands "
                "must not prepare the same data at once."
            )
        yield
