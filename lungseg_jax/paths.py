"""A path as a user types it."""

from pathlib import Path

from lungseg_jax.errors import UserError


def user_path(text: str) -> Path:
    """`text` as a path, with `~` and `~NAME` for a home folder.

    Raises:
      UserError: there is no such user, or the text cannot be a path.
    """
    if "\0" in text:
        raise UserError(f"{text!r} is no path.", rule="a path has no zero bytes.")
    try:
        return Path(text).expanduser()
    except RuntimeError as e:  # of pathlib, where nothing says what ~ is
        raise UserError(
            f"the home folder in {text} is not known.",
            rule="~ is the folder that HOME names, ~NAME that of a user.",
            remedy="write the path out.",
        ) from e
