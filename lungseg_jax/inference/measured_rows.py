"""The rows of a prediction table before they are formatted: measured slices and volumes."""

from typing import Any

import numpy as np

from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.measurements import (
    VolumeMeasurements,
    measure_slice,
    voxel_ml,
)
from lungseg_jax.inference.prediction_rows import VOLUME_ROW


def slice_row(
    name: str,
    k: int | None,
    image: np.ndarray,
    mask: np.ndarray,
    confidence: Confidence,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
) -> dict[str, Any]:
    """Return the row of a slice.

    Args:
      name: the input that it comes from.
      k: its index in a volume, or None for an input that is a single slice.
      image: `[h w]`.
      mask: `[h w]`, boolean.
      confidence: of the prediction for it.
      spacing_mm: between slices, rows and columns, if known.
    """
    row = {"input": name, "slice": k} | vars(confidence)
    plane_mm = spacing_mm[1:] if spacing_mm else None
    return row | measure_slice(image, mask, spacing_mm=plane_mm)


class VolumeRows:
    """Collects the rows of a volume, slice by slice.

    Args:
      name: the input.
      spacing_mm: between slices, rows and columns, if known.
    """

    def __init__(self, name: str, spacing_mm: tuple[float, float, float] | None):
        self._name, self._spacing_mm = name, spacing_mm
        self._slices: list[dict[str, Any]] = []
        self._measurements = VolumeMeasurements()

    def add(
        self, k: int, image: np.ndarray, mask: np.ndarray, confidence: Confidence
    ) -> None:
        """Add slice `k`; for the arguments, see `slice_row`."""
        spacing_mm = self._spacing_mm
        row = slice_row(self._name, k, image, mask, confidence, spacing_mm=spacing_mm)
        self._slices.append(row)
        self._measurements.add(image, mask)

    def finish(self, *, right: int, left: int) -> list[dict[str, Any]]:
        """Return the rows of the slices and, last, that of the volume.

        Args:
          right, left: voxels of each lung.
        """
        row = {"input": self._name, "slice": VOLUME_ROW}
        row |= self._measurements.result(spacing_mm=self._spacing_mm)
        if (one_ml := voxel_ml(self._spacing_mm)) is not None:
            row |= {"right_ml": right * one_ml, "left_ml": left * one_ml}
        return [*self._slices, row]
