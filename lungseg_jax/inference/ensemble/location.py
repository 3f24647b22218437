"""Where a trained ensemble is: a run, a bundle, or the bundle of the package."""

from os import PathLike
from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path

PRETRAINED = "pretrained"  # names the bundle of the package: weights of phantoms only
DESCRIPTION = "bundle.json"


def locate(path: str | PathLike) -> Path:
    """Return the folder of a run or a bundle; PRETRAINED is that of the package.

    Raises:
      UserError: it is not a path; see also `folder_path`.
    """
    if not isinstance(path, str | PathLike):
        raise UserError(
            f"a {type(path).__name__} is not the path of a run or a bundle.",
            rule="one path, as text or as a pathlib.Path.",
            remedy="for several runs, `lungseg export --run=A --run=B BUNDLE` writes one "
            "ensemble, which can be loaded.",
        )
    if path == PRETRAINED:
        return Path(__file__).parent / PRETRAINED
    return folder_path(path)


def is_bundle(path: Path) -> bool:
    """Return whether a folder claims to be a bundle."""
    # To older versions of gcsfs, everything that cannot be listed as a folder is a file.
    return (path / DESCRIPTION).exists()
