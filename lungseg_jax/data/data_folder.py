"""The folders of a data folder; without NumPy, so that commands refuse others at once."""

from pathlib import Path

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.object_storage import is_remote

IMAGES = "2d_images"
MASKS = "2d_masks"


def require_data_folder(folder: Path) -> None:
    """Check that a folder has images and masks, unless it is on object storage.

    Raises:
      UserError: it is missing, or lacks one of them.
    """
    if not is_remote(folder):
        for name in (IMAGES, MASKS):
            subfolder(folder, name)


def subfolder(folder: Path, name: str) -> Path:
    """Return the folder of the images, or of the masks, of a data folder.

    Raises:
      UserError: it, or the data folder, is missing.
    """
    if not folder.is_dir():
        raise UserError(
            f"the data folder {folder} "
            + ("is a file." if folder.exists() else "does not exist."),
            rule=f"a folder that holds {IMAGES}/ and {MASKS}/ with equal file names.",
            remedy=f"check its path; a relative one starts at {Path.cwd()}.",
        )
    if not (folder / name).is_dir():
        raise UserError(
            f"{folder} has no folder {name}/.",
            rule=f"images in {IMAGES}/, masks of the same names in {MASKS}/.",
            remedy="name the folder above them, or make one from volumes with "
            "`lungseg convert`.",
        )
    return folder / name
