"""Which image belongs to which mask: by name, never by position."""

import dataclasses
import difflib
from pathlib import Path

import numpy as np

from lungseg_jax.data.readers import SUFFIXES, read_image, read_mask
from lungseg_jax.errors import UserError

IMAGES = "2d_images"
MASKS = "2d_masks"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files with equal names; `name` is theirs without the suffix."""

    name: str
    image: Path
    mask: Path


@dataclasses.dataclass(frozen=True)
class Slice:
    """What a pair holds: an image `[h w]` and a mask `[h w]`, uint8 in {0, 1}."""

    name: str
    image: np.ndarray
    mask: np.ndarray


def read_slice(pair: Pair) -> Slice:
    """Reads both files of a pair at their own size."""
    return Slice(pair.name, read_image(pair.image), read_mask(pair.mask))


def find_pairs(folder: Path) -> list[Pair]:
    """All pairs of `folder`/2d_images and `folder`/2d_masks, sorted by name.

    Raises:
      UserError: a folder is missing or empty, or a file has no partner; all that have
        none are named in one error.
    """
    images = list_images(_subfolder(folder, IMAGES))
    masks = list_images(_subfolder(folder, MASKS))
    if not images and not masks:
        raise UserError(
            f"{folder} holds no slices: {IMAGES}/ and {MASKS}/ are empty.",
            rule=f"files that end in {', '.join(SUFFIXES)}.",
        )
    maskless = sorted(images.keys() - masks.keys())
    imageless = sorted(masks.keys() - images.keys())
    alone = [
        f"{IMAGES}/{images[name].name} has no mask{_near(name, imageless)}"
        for name in maskless
    ] + [
        f"{MASKS}/{masks[name].name} has no image{_near(name, maskless)}"
        for name in imageless
    ]
    if alone:
        raise UserError(
            f"files without a partner in {folder}: {len(alone)}\n{table(alone)}",
            rule=f"each file in {IMAGES}/ has a mask of the same name in {MASKS}/.",
            remedy="add or rename the missing files, or move the lone ones out.",
        )
    return [Pair(name, images[name], masks[name]) for name in sorted(images)]


def list_images(folder: Path) -> dict[str, Path]:
    """The image files directly in `folder`, by name without suffix; hidden ones aside.

    Raises:
      UserError: two files differ in their suffix alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise UserError(
                f"{folder} has both {found[path.stem].name} and {path.name}.",
                rule="a slice is named by its file name without the suffix.",
                remedy="move one of them out of the folder.",
            )
        found[path.stem] = path
    return found


def table(rows: list[str], most: int = 20) -> str:
    """Indented rows, cut after `most` with a count of what is not shown."""
    shown = [f"  {row}" for row in rows[:most]]
    if len(rows) > most:
        shown.append(f"  ... and {len(rows) - most} more")
    return "\n".join(shown)


def _subfolder(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"the data folder {folder} "
            + ("is a file." if folder.exists() else "does not exist."),
            rule=f"a folder that holds {IMAGES}/ and {MASKS}/ with equal file names.",
            remedy="check --config.data.dir (or --data); a relative path starts at "
            f"{Path.cwd()}.",
        )
    if not (folder / name).is_dir():
        raise UserError(
            f"{folder} has no folder {name}/.",
            rule=f"images in {IMAGES}/, masks of equal names in {MASKS}/.",
        )
    return folder / name


def _near(name: str, others) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.9)
    return f" (near: {near[0]})" if near else ""
