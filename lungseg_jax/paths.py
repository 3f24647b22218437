"""A path as a user types it."""

import os
from pathlib import Path

from lungseg_jax.errors import UserError


def user_path(text: str) -> Path:
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
