"""How much lung, and how dense: the figures that the Kaggle set gives for its slices.

Percentiles are those of Hounsfield units in the mask, interpolated linearly between the
two nearest values.
"""

from collections import Counter
from typing import Any

import numpy as np

PERCENTILES = (5, 95)


def measure_slice(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Of one slice.

    Args:
      image: `[h w]`, Hounsfield units.
      mask: `[h w]`, boolean.
      spacing_mm: between rows and between columns.

    Returns:
      "area_px"; "area_mm2", None without a spacing; "area_fraction" of the slice;
      "mean_hu", "p05_hu" and "p95_hu", None where the mask is empty.
    """
    inside = image[mask]
    area = int(inside.size)
    low, high = np.percentile(inside, PERCENTILES) if area else (None, None)
    return {
        "area_px": area,
        "area_mm2": None if spacing_mm is None else area * float(np.prod(spacing_mm)),
        "area_fraction": area / mask.size,
        "mean_hu": float(inside.mean(dtype=np.float64)) if area else None,
        "p05_hu": None if low is None else float(low),
        "p95_hu": None if high is None else float(high),
    }


class VolumeMeasurements:
    """The same of a volume, slice by slice: values are counted and not kept.

    Exact for integers; other values are rounded to whole Hounsfield units for the
    percentiles, which are then off by 0.5 HU at most. The memory depends on how many
    different values there are, and not on the number of slices.
    """

    def __init__(self):
        self._counts: Counter[int] = Counter()
        self._sum = 0.0

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """A slice `[h w]` and its mask, boolean."""
        inside = image[mask]
        self._sum += float(inside.sum(dtype=np.float64))
        values, counts = np.unique(_whole(inside), return_counts=True)
        self._counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def result(
        self, *, spacing_mm: tuple[float, float, float] | None = None
    ) -> dict[str, Any]:
        """Of all slices so far.

        Args:
          spacing_mm: between slices, rows and columns.

        Returns:
          "voxels"; "volume_ml", None without a spacing; "mean_hu", "p05_hu" and "p95_hu",
          None where all masks are empty.
        """
        voxels = self._counts.total()
        low, high = self._percentiles() if voxels else (None, None)
        voxel_ml = None if spacing_mm is None else float(np.prod(spacing_mm)) / 1000
        return {
            "voxels": voxels,
            "volume_ml": None if voxel_ml is None else voxels * voxel_ml,
            "mean_hu": self._sum / voxels if voxels else None,
            "p05_hu": low,
            "p95_hu": high,
        }

    def _percentiles(self) -> list[float]:
        values = np.array(sorted(self._counts))
        ends = np.cumsum([self._counts[v] for v in values.tolist()])
        found = []
        for percent in PERCENTILES:
            position = (ends[-1] - 1) * percent / 100
            below, above = values[
                np.searchsorted(ends, [int(position), int(np.ceil(position))], "right")
            ]
            found.append(float(below + (above - below) * (position - int(position))))
        return found


def _whole(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -(2**31), 2**31).astype(np.int64)
