"""The scores of masks against true ones, gathered slice by slice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.surface_distance import SURFACE_SCORES, surface_scores


class SliceScores:
    """Takes pairs of masks; has the scores of each, and of all.

    Args:
      tolerance: of NSD, in pixels, or in mm where slices have a spacing.

    Attributes:
      slices: by name, "iou", "dice", "sensitivity", "precision", "area_error", "nsd",
        "hd95", "assd"; None where undefined.
      unit: of distances, "px" or "mm".
    """

    def __init__(self, tolerance: float):
        self.tolerance, self.unit = tolerance, "px"
        self.slices: dict[str, dict[str, Any]] = {}
        self._rows: list[np.ndarray] = []

    def add(
        self,
        name: str,
        predicted: np.ndarray,
        truth: np.ndarray,
        spacing: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """A slice: masks `[h w]`, boolean, and mm between rows and columns, or None.

        Returns:
          Its row in `slices`.
        """
        self.unit = "mm" if spacing else "px"
        counts = overlap.count(predicted, truth)
        self._rows.append(counts)
        found = {
            "iou": overlap.iou(counts),
            "dice": overlap.dice(counts),
            "sensitivity": overlap.sensitivity(counts),
            "precision": overlap.precision(counts),
            "area_error": overlap.area_error(counts),
            **surface_scores(
                predicted, truth, spacing=spacing, tolerance=self.tolerance
            ),
        }
        self.slices[name] = {
            key: None if np.isnan(value) else float(value)
            for key, value in found.items()
        }
        return self.slices[name]

    @property
    def counts(self) -> np.ndarray:
        """Count rows of `overlap.count`, `[n 3]`."""
        return np.reshape(self._rows, (-1, 3))

    def scores(self, groups: Sequence[str] | None = None) -> dict[str, Any]:
        """Of all slices; `groups` is the patient of each. See `overlap.scores`."""
        surfaces = [
            [one[key] for key in SURFACE_SCORES] for one in self.slices.values()
        ]
        return overlap.summarize(
            self.counts,
            groups=groups,
            surfaces=np.array(surfaces, float).reshape(-1, len(SURFACE_SCORES)),
        )
