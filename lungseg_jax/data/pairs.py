"""Which image belongs to which mask: by name, never by position."""

import dataclasses
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lungseg_jax.data.io.images import SUFFIXES, read_image, read_mask
from lungseg_jax.runtime.errors import UserError, combine_errors

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
      UserError: a folder is missing or empty, or what `scan` finds wrong, in one error.
    """
    pairs, faults = scan(folder)
    if faults:
        raise combine_errors(faults, str(folder))
    return pairs


def scan(folder: Path) -> tuple[list[Pair], list[UserError]]:
    """The pairs, sorted by name, and a fault for each file that is in none.

    Faults are files without a partner, names that stand twice, and what cannot be an
    image: folders, dead links, links that lead out of the data folder.

    Raises:
      UserError: a folder is missing, or both are empty.
    """
    images, bad_images = _list(_subfolder(folder, IMAGES), inside=folder)
    masks, bad_masks = _list(_subfolder(folder, MASKS), inside=folder)
    faults = bad_images | bad_masks
    if not images and not masks:
        raise UserError(
            f"{folder} holds no slices: {IMAGES}/ and {MASKS}/ are empty.",
            rule=f"files that end in {', '.join(SUFFIXES)}.",
        )
    alone = [
        *_alone(IMAGES, images, masks, "has no mask"),
        *_alone(MASKS, masks, images, "has no image"),
    ]
    pairs = [
        Pair(name, images[name], masks[name])
        for name in sorted(images.keys() & masks.keys())
        if images[name] not in faults and masks[name] not in faults
    ]
    return pairs, [*faults.values(), *alone]


def list_images(folder: Path) -> dict[str, Path]:
    """The image files directly in `folder`, by name without suffix; hidden ones aside.

    Raises:
      UserError: two files differ in their suffix alone, or one is a folder or a dead
        link.
    """
    found, faults = _list(folder)
    if faults:
        raise combine_errors([*faults.values()], str(folder))
    return found


def _list(
    folder: Path, inside: Path | None = None
) -> tuple[dict[str, Path], dict[Path, UserError]]:
    """The files by name, and the faults by file; links must not lead out of `inside`."""
    found: dict[str, Path] = {}
    faults: dict[Path, UserError] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            faults[path] = UserError(
                f"{folder} has both {found[path.stem].name} and {path.name}.",
                rule="a slice is named by its file name without the suffix.",
                remedy="move one of them out of the folder.",
            )
            continue
        found[path.stem] = path
        fault = _no_file(path)
        if not fault and inside:
            fault = _leads_out(path, inside) or _no_text(path)
        if fault:
            faults[path] = fault
    return found, faults


def _no_file(path: Path) -> UserError | None:
    if path.is_file():
        return None
    what = "a folder" if path.is_dir() else "not a file"
    if path.is_symlink() and not path.exists():
        what = f"a link to {os.readlink(path)}, which is not there"
    return UserError(
        f"{path} is {what}.",
        rule="what has the name of an image is an image file.",
        remedy="move it out, or put the image in its place.",
    )


def _leads_out(path: Path, inside: Path) -> UserError | None:
    """A link to one file elsewhere breaks when the folder is moved or sent on."""
    target = path.resolve()
    homes = inside.resolve(), path.parent.resolve()  # 2d_images/ may be a link itself
    if not path.is_symlink() or any(target.is_relative_to(home) for home in homes):
        return None
    return UserError(
        f"{path} is a link to {target}, outside of the data folder.",
        rule="the files of a data folder lie in it.",
        remedy="copy the files, or make the whole folder a link.",
    )


def _no_text(path: Path) -> UserError | None:
    """Names go into the run folder and the report, which are UTF-8."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = path.name.encode(errors="backslashreplace").decode()
        return UserError(
            f"{path.parent}/{shown} has a name that is no UTF-8.",
            rule="file names are text.",
            remedy="rename it, and its partner alike.",
        )
    return None


def _alone(
    kind: str, files: dict[str, Path], others: dict[str, Path], lacks: str
) -> Iterator[UserError]:
    candidates = sorted(others.keys() - files.keys())[:1000]
    for i, name in enumerate(sorted(files.keys() - others.keys())):
        # For the rows that a table shows: all against all would take hours.
        near = difflib.get_close_matches(name, candidates if i < 20 else [], 1, 0.9)
        hint = f" (near: {near[0]})" if near else ""
        yield UserError(
            f"{kind}/{files[name].name} {lacks}{hint}",
            rule=f"each file in {IMAGES}/ has a mask of the same name in {MASKS}/.",
            remedy="add or rename the missing files, or move the lone ones out.",
        )


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
