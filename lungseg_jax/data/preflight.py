"""Every file is read once before anything is built on it; all faults in one table."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lungseg_jax.data.pairs import Pair, table
from lungseg_jax.data.readers import read_image, read_mask
from lungseg_jax.errors import UserError

THREADS = 8


def digests(pairs: Sequence[Pair]) -> dict[str, str]:
    """The sha256 of each file, by its path relative to the data folder."""
    paths = [path for pair in pairs for path in (pair.image, pair.mask)]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(
            zip(
                (f"{path.parent.name}/{path.name}" for path in paths),
                pool.map(_sha256, paths),
                strict=True,
            )
        )


def fingerprint(digest_of: dict[str, str]) -> str:
    """One short name for the content of a whole data folder."""
    rows = "\n".join(f"{path} {digest_of[path]}" for path in sorted(digest_of))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def check_pairs(
    pairs: Sequence[Pair], advance: Callable[[], object] = lambda: None
) -> tuple[str, tuple[int, int] | None]:
    """Reads each file; returns the dtype of all images, and their shape if they share it.

    Args:
      pairs: what `find_pairs` found.
      advance: called after each pair, for a progress bar.

    Raises:
      UserError: with a line for each fault: unreadable or truncated files, colour, masks
        with other values, shapes that differ within a pair, mixed dtypes.
    """
    faults, dtypes, shapes = [], {}, set()
    with ThreadPoolExecutor(THREADS) as pool:
        for pair, (image, found) in zip(pairs, pool.map(_check, pairs), strict=True):
            faults += found
            if image:
                dtypes.setdefault(image.dtype, pair.image.name)
                shapes.add(image.shape)
            advance()
    if len(dtypes) > 1:
        examples = ", ".join(f"{d} ({name})" for d, name in dtypes.items())
        faults.append(f"images of several types: {examples}. Rule: one type for all.")
    if faults:
        raise UserError(
            f"faults in {pairs[0].image.parent.parent}: {len(faults)}\n{table(faults)}",
            remedy="mend or move out these files; nothing has been written.",
        )
    return next(iter(dtypes)), shapes.pop() if len(shapes) == 1 else None


class _Seen(NamedTuple):
    dtype: str
    shape: tuple[int, int]


def _check(pair: Pair) -> tuple[_Seen | None, list[str]]:
    faults, arrays = [], []
    for read, path in ((read_image, pair.image), (read_mask, pair.mask)):
        try:
            arrays.append(read(path))
        except UserError as e:
            faults.append(f"{e.what} Rule: {e.rule}" if e.rule else e.what)
    if faults:
        return None, faults
    image, mask = arrays
    if image.shape != mask.shape:
        faults.append(
            f"{pair.name}: the image is {image.shape}, its mask {mask.shape}. "
            "Rule: equal heights and widths."
        )
    return _Seen(str(image.dtype), image.shape), faults


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}.") from e
