"""The summary of a prediction: volumes, empty masks, review and expected IoU."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungseg_jax.inference import review
from lungseg_jax.inference.prediction_rows import VOLUME_ROW
from lungseg_jax.runtime.errors import pluralize

SHOWN = 12  # slices, or series of neighbors, that are named


class PredictionSummary:
    """Summarizes rows in a few lines; memory holds a number for each.

    Args:
      review_below: the expected IoU below which a slice should be reviewed, or None.
    """

    def __init__(self, review_below: float | None):
        self._review_below = review_below
        self._volumes: list[str] = []  # a line for each
        self._expected_ious: list[float] = []
        self._to_review: list[tuple[str, int | None]] = []
        self._reasons: Counter[str] = Counter()
        self._empty = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of a slice or of a volume, not formatted."""
        if row["slice"] == VOLUME_ROW:
            self._volumes.append(_describe_volume(row))
            return
        self._empty += not row["area_px"]
        self._expected_ious.append(row["expected_iou"])
        if row["review"]:
            self._to_review.append((row["input"], row["slice"]))
            self._reasons.update(row["reasons"])

    def text(self) -> str:
        """Return the lines, or "" if no slice was added, as all masks were kept."""
        ious = self._expected_ious
        if not ious:
            return ""
        lines, slices = list(self._volumes), pluralize(len(ious), "slice")
        if self._empty:
            lines.append(f"no lung was found in {self._empty} of {slices}")
        if self._review_below is not None or self._to_review:
            lines += self._review_lines(slices)
        if len(ious) == 1:
            lines.append(f"expected IoU: {ious[0]:.3f}")
        else:
            median, lowest = np.median(ious), np.min(ious)
            lines.append(f"expected IoU: median {median:.3f}, lowest {lowest:.3f}")
        return "\n".join(lines)

    def _review_lines(self, slices: str) -> list[str]:
        line = f"{len(self._to_review)} of {slices} to review"
        limit = ""
        if self._review_below is not None:
            limit = f" (expected IoU below {self._review_below:.3f})"
        if not self._to_review:
            return [line + limit]
        line += f": {_name_slices(self._to_review)}"
        limits = {review.UNCERTAIN: limit, review.MEMBERS: limit}
        reasons = (
            f"{reason}{limits.get(reason, '')} in {n}"
            for reason, n in self._reasons.most_common()
        )
        return [line, f"reasons: {', '.join(reasons)}"]


def _describe_volume(row: Mapping[str, Any]) -> str:
    size = f"{row['voxels']} voxels"
    if row["volume_ml"] is not None:
        size = f"{row['volume_ml']:.0f} ml"
        size += f" (right {row['right_ml']:.0f}, left {row['left_ml']:.0f})"
    density = "" if row["mean_hu"] is None else f", mean {row['mean_hu']:.0f} HU"
    return f"{row['input']}: lung {size}{density}"


def _name_slices(slices: Sequence[tuple[str, int | None]]) -> str:
    """Name slices, each volume once and neighbors as one span: `a.nii:3, 7-12, b.nii:0`.

    Args:
      slices: the name of an input and the index in it, or None if it is a single slice.
    """

    def series(item: tuple[int, tuple[str, int | None]]) -> tuple[str, int | None]:
        i, (name, k) = item
        return name, None if k is None else k - i  # is the same for neighbors

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
