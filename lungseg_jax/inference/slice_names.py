"""Names of slices in a summary."""

import itertools
from collections.abc import Sequence

SHOWN = 12  # slices, or series of neighbours, that are named


def name_slices(slices: Sequence[tuple[str, int | None]]) -> str:
    """Name slices, each volume once and neighbours as one span: `a.nii:3, 7-12, b.nii:0`.

    Args:
      slices: the name of an input and the index in it, or None if it is a single slice.
    """

    def series(item: tuple[int, tuple[str, int | None]]) -> tuple[str, int | None]:
        i, (name, k) = item
        return name, None if k is None else k - i  # is the same for neighbours

    groups = [
        [slice_ for _, slice_ in group]
        for _, group in itertools.groupby(enumerate(slices), series)
    ]
    words, volume = [], None
    for group in groups[:SHOWN]:
        (name, first), (_, last) = group[0], group[-1]
        indices = f"{first}" if first == last else f"{first}-{last}"
        prefix = "" if name == volume else f"{name}:"
        words.append(name if first is None else prefix + indices)
        volume = name
    more = sum(map(len, groups[SHOWN:]))
    return ", ".join(words) + (f" and {more} more" if more else "")
