"""The user's cache folder, which keeps prepared data and compiled programs."""

import os
from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path


def cache_root(setting: str = "", *, option: str = "--config.cache_dir") -> Path:
    """Create and return the cache folder.

    Args:
      setting: its path; empty for `lungseg_jax` in the user's cache directory.
      option: what sets it, for errors.

    Raises:
      UserError: it cannot be created.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = user_path(setting or f"{user_cache}/lungseg_jax")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"the cache folder {root} cannot be created: {e.strerror}.",
            remedy=f"name another with {option}=DIR."
            if setting
            else "set XDG_CACHE_HOME to another folder.",
        ) from e
    return root.absolute()


def root_if_possible(setting: str = "") -> Path | None:
    """Return the `cache_root`, or None if it cannot be created: a cache saves only time."""
    try:
        return cache_root(setting)
    except UserError:
        return None
