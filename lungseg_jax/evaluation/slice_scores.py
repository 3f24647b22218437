"""Scores of predicted masks, accumulated slice by slice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.registry import METRICS, MaskPair, score_masks
from lungseg_jax.runtime.files import csv_writer
from lungseg_jax.runtime.sharing import all_gather, interleave


class SliceScores:
    """Scores pairs of masks, of slices or of volumes, by every metric of `METRICS`.

    Args:
      tolerance: of NSD, in pixels, or in mm where slices have a spacing.

    Attributes:
      slices: the row of each slice by its name, a value for each metric; None where it
        is undefined.
      unit: of distances, "px" or "mm".
    """

    def __init__(self, tolerance: float):
        self.tolerance, self.unit = tolerance, "px"
        self.slices: dict[str, dict[str, Any]] = {}
        self._counts: list[np.ndarray] = []

    def add(
        self,
        name: str,
        predicted: np.ndarray,
        truth: np.ndarray,
        spacing: tuple[float, ...] | None = None,
    ) -> dict[str, Any]:
        """Score a slice.

        Args:
          name: of the slice.
          predicted, truth: masks `[h w]`, boolean; or volumes `[d h w]`.
          spacing: mm between rows and between columns, where it is known; of a volume,
            first between slices.

        Returns:
          Its row in `slices`, to which the caller may add columns.
        """
        self.unit = "mm" if spacing else "px"
        pair = MaskPair(predicted, truth, spacing or None, self.tolerance)
        self._counts.append(pair.counts)
        self.slices[name] = score_masks(pair)
        return self.slices[name]

    def merge(self) -> None:
        """Add the slices of the other processes of a job; all must call this."""
        parts = all_gather([self.unit, list(self.slices.items()), self.counts.tolist()])
        units = [unit for unit, slices, _ in parts if slices]
        self.unit = units[-1] if units else self.unit
        self.slices = dict(interleave([slices for _, slices, _ in parts]))
        self._counts = [np.array(row) for row in interleave([c for *_, c in parts])]

    @property
    def counts(self) -> np.ndarray:
        """Count rows of `overlap.count_pixels`, `[n 3]`."""
        return np.reshape(self._counts, (-1, 3))

    def summarize(self, groups: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the scores of all slices together, see `overlap.summarize`.

        Args:
          groups: the patient of each slice.
        """
        values = {
            name: np.array([row[name] for row in self.slices.values()], float)
            for name in METRICS
        }
        return overlap.summarize(self.counts, values=values, groups=groups)


def write_scores(
    path: Path, scores: Mapping[str, Mapping[str, Any]], *, of: str = "slice"
) -> None:
    """Write a row for each slice as a CSV file; the cell of an undefined score is empty.

    Args:
      path: of the file.
      scores: rows by the name of the slice, all with the same columns.
      of: what the rows are of, for the first column.
    """
    columns = [of, *next(iter(scores.values()))]
    with csv_writer(path, columns) as rows:
        rows.writerows({of: name} | dict(row) for name, row in scores.items())
