"""What is told of predictions: a CSV row for each slice and each volume, and a summary."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.inference.measurements import VolumeMeasurements, measure_slice
from lungseg_jax.inference.segmenter import Segmentation
from lungseg_jax.runtime.errors import UserError, pluralize

COLUMNS = (
    "input",
    "slice",  # from 0, feet to head; "all" for a volume
    "expected_iou",
    "review",
    "disagreement",
    "uncertainty_bits",
    "mutual_information_bits",
    "area_px",
    "area_mm2",
    "area_fraction",
    "volume_ml",
    "mean_hu",
    "p05_hu",
    "p95_hu",
)
SHOWN = 12  # slices to review that a summary names


class PredictionTable:
    """Gathers what was found; as a context it makes the CSV file, whole or not at all.

    Args:
      path: of the file, or None.
      domain: of the images; densities are of Hounsfield units alone.
      review_below: the expected IoU below which slices are to be reviewed, or None.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        domain: str = "HU",
        review_below: float | None = None,
    ):
        self._path, self._in_hu = path, domain == "HU"
        self._review_below = review_below
        self._file = self._rows = None
        self._volume = VolumeMeasurements()
        self._review: list[str] = []
        self._expected: list[float] = []
        self._volumes: list[str] = []
        self._slices = self._empty = 0

    def __enter__(self) -> "PredictionTable":
        if self._path:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._partial.open(
                    "w", newline="", encoding="utf-8", errors="backslashreplace"
                )
            except OSError as e:
                raise UserError(f"{self._path} cannot be written: {e.strerror}.") from e
            self._rows = csv.DictWriter(self._file, COLUMNS)
            self._rows.writeheader()
        return self

    def __exit__(self, kind, *_) -> None:
        if not self._file:
            return
        try:
            self._file.close()
            if kind is None:
                os.replace(self._partial, self._path)
        except OSError as e:
            raise UserError(f"{self._path} cannot be written: {e.strerror}.") from e
        finally:
            self._partial.unlink(missing_ok=True)

    def add_slice(
        self,
        name: str,
        k: int | None,
        image: np.ndarray,
        found: Segmentation,
        *,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> None:
        """A slice of an image file (`k` None) or of a volume; `spacing_mm` as it has it."""
        self._slices += 1
        self._empty += not found.mask.any()
        where = name if k is None else f"{name}:{k}"
        if found.review:
            self._review.append(where)
        self._expected.append(found.expected_iou)
        if k is not None:
            self._volume.add(image, found.mask)
        if self._rows:
            plane = spacing_mm[1:] if spacing_mm else None
            measured = measure_slice(image, found.mask, spacing_mm=plane)
            self._write(
                {
                    "input": name,
                    "slice": "" if k is None else k,
                    "expected_iou": found.expected_iou,
                    "review": "" if found.review is None else int(found.review),
                    "disagreement": found.disagreement,
                    "uncertainty_bits": float(found.uncertainty.mean()),
                    "mutual_information_bits": float(found.mutual_information.mean()),
                }
                | measured
            )

    def end_volume(
        self, name: str, spacing_mm: tuple[float, float, float] | None
    ) -> None:
        """After the last slice of a volume."""
        measured = self._volume.result(spacing_mm=spacing_mm)
        self._volume = VolumeMeasurements()
        size = f"{measured['voxels']} voxels"
        if measured["volume_ml"] is not None:
            size = f"{measured['volume_ml']:.0f} ml"
        density = ""
        if self._in_hu and measured["mean_hu"] is not None:
            density = f", mean {measured['mean_hu']:.0f} HU"
        self._volumes.append(f"{name}: lung {size}{density}")
        self._write({"input": name, "slice": "all"} | measured)

    def summary(self) -> str:
        """Some lines for the reader."""
        lines = list(self._volumes)
        if self._empty:
            lines.append(
                f"no lung was found in {self._empty} of {pluralize(self._slices, 'slice')}"
            )
        if self._review_below is not None:
            named = ", ".join(self._review[:SHOWN])
            more = len(self._review) - SHOWN
            lines.append(
                f"{len(self._review)} of {pluralize(self._slices, 'slice')} to review "
                f"(expected IoU below {self._review_below:.3f})"
                + (f": {named}" if named else "")
                + (f" and {more} more" if more > 0 else "")
            )
        if len(self._expected) == 1:
            lines.append(f"expected IoU: {self._expected[0]:.3f}")
        elif self._expected:
            lines.append(
                f"expected IoU: median {np.median(self._expected):.3f}, lowest "
                f"{np.min(self._expected):.3f}"
            )
        return "\n".join(lines)

    def _write(self, row: dict[str, Any]) -> None:
        if not self._rows:
            return
        if not self._in_hu:
            row |= dict.fromkeys(("mean_hu", "p05_hu", "p95_hu"))
        shown = {key: _shown(value) for key, value in row.items() if key in COLUMNS}
        self._rows.writerow(shown)

    @property
    def _partial(self) -> Path:
        return self._path.with_name(f".{self._path.name}.partial")


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
