"""Overlap scores of several masks of the same slices."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lungseg_jax.metrics import overlap
from lungseg_jax.runtime.sharing import all_gather, interleave


class MaskScores:
    """Accumulates how masks overlap with the true ones.

    Args:
      names: of the masks.
    """

    def __init__(self, names: Iterable[str]):
        self._counts: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def add(self, masks: Iterable[tuple[str, np.ndarray]], truth: np.ndarray) -> None:
        """Add a slice: names with masks `[h w]`, and the true mask."""
        for name, mask in masks:
            self._counts[name].append(overlap.count_pixels(mask, truth))

    def merge(self) -> None:
        """Add the slices of the other processes of a job; all must call this."""
        parts = all_gather(
            {n: np.reshape(c, (-1, 3)).tolist() for n, c in self._counts.items()}
        )
        self._counts = {
            name: [np.array(row) for row in interleave([part[name] for part in parts])]
            for name in self._counts
        }

    def summarize(self, groups: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        """Return the scores by name, see `overlap.summarize`."""
        return {
            name: overlap.summarize(np.reshape(rows, (-1, 3)), groups=groups)
            for name, rows in self._counts.items()
        }

    def pooled_iou(self) -> dict[str, float | None]:
        """Return the IoU by name; None where no slice has lung, in truth or mask."""
        return {
            name: overlap.none_if_nan(overlap.iou(sum(rows)))
            for name, rows in self._counts.items()
        }
