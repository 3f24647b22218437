"""Where a preview may be written; without NumPy, so that `train` refuses others at once."""

from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path
from lungseg_jax.runtime.outputs import check_outputs


def preview_path(text: str) -> Path:
    """Convert what names a new preview to a path.

    Raises:
      UserError: it is not a PNG, exists, or cannot be created.
    """
    path = user_path(text)
    if path.suffix != ".png":
        raise UserError(
            f"the preview {text} is not a PNG.", remedy="--preview=FILE.png"
        )
    check_outputs([path], inputs=[], overwrite=False, remedy="name another file.")
    return path
