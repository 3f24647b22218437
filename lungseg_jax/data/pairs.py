"""Pairs of an image and a mask, matched by name and never by position."""

import dataclasses
import difflib
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lungseg_jax.data.data_folder import IMAGES, MASKS, subfolder
from lungseg_jax.data.io import formats
from lungseg_jax.runtime.errors import UserError, combine_errors

ROWS_WITH_HINTS = 20  # as many rows as an error shows


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files of equal names; `name` is theirs without the suffix."""

    name: str
    image: Path
    mask: Path


@dataclasses.dataclass(frozen=True)
class Slice:
    """The content of a pair.

    Attributes:
      name: of both files.
      image: `[h w]`.
      mask: `[h w]`, uint8 in {0, 1}.
      aspect: height of a pixel over its width.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    aspect: float = 1.0


def read_slice(pair: Pair, *, aspect: float = 1.0) -> Slice:
    """Read both files of a pair at their original size; see `Slice` for `aspect`."""
    image = formats.read_slice_array(pair.image)
    return Slice(pair.name, image, formats.read_slice_mask(pair.mask), aspect)


def name_of(path: str | Path) -> str:
    """Return the name of a slice, from the path of its image or its mask."""
    return formats.split_suffix(Path(path))[0]


def find_pairs(folder: Path) -> list[Pair]:
    """Return all pairs of `folder`/2d_images and `folder`/2d_masks, sorted by name.

    Raises:
      UserError: a folder is missing or empty, or `scan` finds faults; all in one error.
    """
    pairs, faults = scan(folder)
    if faults:
        raise combine_errors(faults, str(folder))
    return pairs


def scan(folder: Path) -> tuple[list[Pair], list[UserError]]:
    """Return the pairs, sorted by name, and a fault for each file that is in none.

    Faults are files without a partner, duplicate names, and paths that cannot be an
    image: folders, dead links, links that lead out of the data folder.

    Raises:
      UserError: a folder is missing, or both are empty.
    """
    images, bad_images = _list_files(subfolder(folder, IMAGES), inside=folder)
    masks, bad_masks = _list_files(subfolder(folder, MASKS), inside=folder)
    masks, repeated = rename(masks, images)
    faults = bad_images | bad_masks | repeated
    if not images and not masks:
        raise UserError(
            f"{folder} holds no slices: {IMAGES}/ and {MASKS}/ are empty.",
            rule=f"files that end in {', '.join(formats.suffixes(formats.SLICE))}.",
        )
    unpaired = [
        *_unpaired(IMAGES, images, masks, "has no mask"),
        *_unpaired(MASKS, masks, images, "has no image"),
    ]
    pairs = [
        Pair(name, images[name], masks[name])
        for name in sorted(images.keys() & masks.keys())
        if images[name] not in faults and masks[name] not in faults
    ]
    return pairs, [*faults.values(), *unpaired]


def same_names(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Replace names by known ones that differ only in how their accents are stored.

    macOS may take them apart.
    """
    by_form = {unicodedata.normalize("NFC", name): name for name in known}
    return [
        name if name in known else by_form.get(unicodedata.normalize("NFC", name), name)
        for name in names
    ]


def rename(
    files: Mapping[str, Path], known: Collection[str]
) -> tuple[dict[str, Path], dict[Path, UserError]]:
    """Return files by their `same_names`, and a fault for each that has one already."""
    renamed: dict[str, Path] = {}
    faults: dict[Path, UserError] = {}
    for name, path in zip(same_names(files, known), files.values(), strict=True):
        first = renamed.setdefault(name, path)
        if first != path:
            faults[path] = UserError(
                f"{path.parent} has both {first.name!a} and {path.name!a}.",
                rule="names that differ only in how accents are stored are one name.",
                remedy="move one of them out of the folder.",
            )
    return renamed, faults


def list_images(
    folder: Path, kinds: Collection[str] = (formats.SLICE,)
) -> dict[str, Path]:
    """Return the image files directly in `folder` by name without suffix, sorted.

    Hidden files are skipped, and so are formats of other kinds.

    Raises:
      UserError: two files differ only in their suffix, or one is a folder or a dead link.
    """
    files, faults = _list_files(folder, kinds=kinds)
    if faults:
        raise combine_errors([*faults.values()], str(folder))
    return files


def _list_files(
    folder: Path,
    inside: Path | None = None,
    kinds: Collection[str] = (formats.SLICE,),
) -> tuple[dict[str, Path], dict[Path, UserError]]:
    """Return files by name, and faults by file; links must not lead out of `inside`."""
    files: dict[str, Path] = {}
    faults: dict[Path, UserError] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or formats.kind_of(path) not in kinds:
            continue
        name = name_of(path)
        if name in files:
            faults[path] = UserError(
                f"{folder} has both {files[name].name} and {path.name}.",
                rule="a slice is named by its file name without the suffix.",
                remedy="move one of them out of the folder.",
            )
            continue
        files[name] = path
        fault = _check_is_file(path)
        if not fault and inside:
            fault = _check_link(path, inside) or _check_name(path)
        if fault:
            faults[path] = fault
    return files, faults


def _check_is_file(path: Path) -> UserError | None:
    if path.is_file():
        return None
    what = "a folder" if path.is_dir() else "not a file"
    if path.is_symlink() and not path.exists():
        what = f"a link to {os.readlink(path)}, which does not exist"
    return UserError(
        f"{path} is {what}.",
        rule="a path with the name of an image is an image file.",
        remedy="move it out of the folder, or replace it by the image.",
    )


def _check_link(path: Path, inside: Path) -> UserError | None:
    """A link to a file elsewhere breaks when the folder is moved or sent to someone."""
    target = path.resolve()
    allowed = inside.resolve(), path.parent.resolve()  # 2d_images/ itself may be a link
    if not path.is_symlink() or any(target.is_relative_to(f) for f in allowed):
        return None
    return UserError(
        f"{path} is a link to {target}, outside the data folder.",
        rule="the files of a data folder are inside it.",
        remedy="copy the files, or make the entire folder a link.",
    )


def _check_name(path: Path) -> UserError | None:
    """Names are written to the run folder and the report, which are UTF-8."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = path.name.encode(errors="backslashreplace").decode()
        return UserError(
            f"{path.parent}/{shown} has a name that is not UTF-8.",
            rule="file names are text.",
            remedy="rename it and its partner.",
        )
    return None


def _unpaired(
    folder: str, files: dict[str, Path], partners: dict[str, Path], lacks: str
) -> Iterator[UserError]:
    """Yield a fault for each file without a partner, with a similar name as a hint."""
    candidates = sorted(partners.keys() - files.keys())[:1000]
    for i, name in enumerate(sorted(files.keys() - partners.keys())):
        # Only for the rows that are shown: comparing all with all would take hours.
        names = candidates if i < ROWS_WITH_HINTS else []
        near = difflib.get_close_matches(name, names, 1, 0.9)
        hint = f" (near: {near[0]})" if near else ""
        yield UserError(
            f"{folder}/{files[name].name} {lacks}{hint}",
            rule=f"each file in {IMAGES}/ has a mask of the same name in {MASKS}/.",
            remedy="add or rename the missing files, or move the unpaired ones out.",
        )
