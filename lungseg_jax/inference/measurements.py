"""Area, volume and density of the lung, defined like the statistics of the Kaggle set.

Densities are the mean and percentiles of the Hounsfield units in the mask. Percentiles
are interpolated linearly between the two nearest values.
"""

from typing import Any

import numpy as np

PERCENTILES = (5, 95)
MAX_RANGE = 2**16  # a range of values that is too large for a counter of each


def voxel_ml(spacing_mm: tuple[float, float, float] | None) -> float | None:
    """Return the volume of a voxel in ml, or None without a spacing."""
    return None if spacing_mm is None else float(np.prod(spacing_mm)) / 1000


def measure_slice(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    spacing_mm: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Measure the lung in a slice.

    Args:
      image: `[h w]`, Hounsfield units.
      mask: `[h w]`, boolean.
      spacing_mm: between rows and between columns.

    Returns:
      "area_px"; "area_mm2", None without a spacing; "area_fraction", relative to the
      slice; "mean_hu", "p05_hu" and "p95_hu", None if the mask is empty.
    """
    inside = image[mask]
    area = int(inside.size)
    low, high = _percentiles_of(inside) if area else (None, None)
    return {
        "area_px": area,
        "area_mm2": None if spacing_mm is None else area * float(np.prod(spacing_mm)),
        "area_fraction": area / mask.size,
        "mean_hu": float(inside.mean(dtype=np.float64)) if area else None,
        "p05_hu": low,
        "p95_hu": high,
    }


class VolumeMeasurements:
    """Accumulates the measurements of a volume slice by slice, without keeping the slices.

    Values are counted for the percentiles, which are exact for integers. Other values are
    rounded to integer Hounsfield units, an error of at most 0.5 HU. Memory grows with the
    number of distinct values, not with the number of slices.
    """

    def __init__(self):
        self._values = self._counts = np.zeros(0, np.int64)
        self._sum = 0.0

    def add(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Add a slice `[h w]`, in Hounsfield units, and its boolean mask `[h w]`."""
        inside = image[mask]
        self._sum += float(inside.sum(dtype=np.float64))
        values, counts = _count(inside)
        self._values, position = np.unique(
            np.concatenate([self._values, values]), return_inverse=True
        )
        together = np.concatenate([self._counts, counts])
        self._counts = np.zeros(len(self._values), np.int64)
        np.add.at(self._counts, position, together)

    def result(
        self, *, spacing_mm: tuple[float, float, float] | None = None
    ) -> dict[str, Any]:
        """Return the measurements of all slices so far.

        Args:
          spacing_mm: between slices, between rows and between columns.

        Returns:
          "voxels"; "volume_ml", None without a spacing; "mean_hu", "p05_hu" and "p95_hu",
          None if all masks are empty.
        """
        voxels = int(self._counts.sum())
        low = high = None
        if voxels:
            low, high = _percentiles(self._values, self._counts)
        one_ml = voxel_ml(spacing_mm)
        return {
            "voxels": voxels,
            "volume_ml": None if one_ml is None else voxels * one_ml,
            "mean_hu": self._sum / voxels if voxels else None,
            "p05_hu": low,
            "p95_hu": high,
        }


def _percentiles_of(values: np.ndarray) -> list[float]:
    if values.dtype.kind in "iu":  # which need not be sorted
        return _percentiles(*_count(values))
    return np.percentile(values, PERCENTILES).tolist()


def _percentiles(values: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return the percentiles of values, ascending, that are there so many times."""
    ends = np.cumsum(counts)
    percentiles = []
    for percent in PERCENTILES:
        position = (ends[-1] - 1) * percent / 100  # among all voxels, sorted
        neighbors = [int(position), int(np.ceil(position))]
        below, above = values[np.searchsorted(ends, neighbors, "right")]
        fraction = position - int(position)
        percentiles.append(float(below + (above - below) * fraction))
    return percentiles


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, ascending and rounded to integers, and their counts."""
    if values.dtype == np.float16:  # which does not reach the limits below
        values = values.astype(np.float32)
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 4:
        values = np.clip(np.rint(values), -(2**31), 2**31)
    values = values.astype(np.int64)
    low = values.min(initial=2**31)
    if not values.size or values.max() - low >= MAX_RANGE:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values - low)
    present = np.flatnonzero(counts)
    return present + low, counts[present]
