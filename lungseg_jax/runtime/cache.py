"""Where prepared data and compiled programs are kept between runs."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path


def cache_root(setting: str = "") -> Path:
    """The cache folder, created: `setting`, or else lungseg_jax in the user's own.

    Raises:
      UserError: it cannot be written.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = user_path(setting or f"{user_cache}/lungseg_jax")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"the cache folder {root} cannot be made: {e.strerror}.",
            remedy="name another with --config.cache_dir=DIR.",
        ) from e
    return root.absolute()


@contextlib.contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Within, other processes wait at the same file; one that is killed lets them go on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"waiting for another process that holds {file}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def enable_compilation_cache(root: Path) -> None:
    """Keeps every compiled program: most of ours are small, and compile in a second."""
    import jax  # here: the rest of this file is of use without it

    jax.config.update("jax_compilation_cache_dir", str(root / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
