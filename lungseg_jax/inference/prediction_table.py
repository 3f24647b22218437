"""Per-slice and per-volume prediction results, as CSV and as a summary."""

import contextlib
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.inference import review
from lungseg_jax.inference.measurements import VolumeMeasurements, measure_slice
from lungseg_jax.inference.segmenter import Segmentation
from lungseg_jax.runtime.errors import pluralize
from lungseg_jax.runtime.files import csv_writer

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
    "right_ml",
    "left_ml",
    "reasons",  # to review, separated by semicolons
)
DENSITIES = ("mean_hu", "p05_hu", "p95_hu")
SHOWN = 12  # slices to review that the summary names


@dataclasses.dataclass(frozen=True)
class Confidence:
    """The columns of a slice that say how far to trust its mask."""

    expected_iou: float
    review: bool | None
    disagreement: float
    uncertainty_bits: float
    mutual_information_bits: float
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, segmentation: Segmentation) -> "Confidence":
        """Summarize the segmentation of one slice."""
        uncertainty = float(segmentation.uncertainty.mean())
        mutual_information = float(segmentation.mutual_information.mean())
        reason = review.reason_of(uncertainty, mutual_information)
        return cls(
            expected_iou=segmentation.expected_iou,
            review=segmentation.review,
            disagreement=segmentation.disagreement,
            uncertainty_bits=uncertainty,
            mutual_information_bits=mutual_information,
            reasons=(reason,) if segmentation.review else (),
        )

    def with_reason(self, reason: str) -> "Confidence":
        """Return the same with one more reason to review the slice."""
        return dataclasses.replace(self, review=True, reasons=(*self.reasons, reason))


class PredictionTable:
    """Collects the results of predictions and writes them to a CSV file.

    It is a context manager: the file appears at the end, and only if the block succeeds.
    Rows are written as they are added; memory holds what the summary needs.

    Args:
      path: the CSV file, or None for a summary only.
      domain: the kind of intensities, a key of `data.intensity.DOMAINS`. Densities are
        reported only for Hounsfield units.
      review_below: the expected IoU below which a slice should be reviewed, or None.
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
        self._stack, self._writer = contextlib.ExitStack(), None
        self._volume = VolumeMeasurements()
        self._volume_lines: list[str] = []
        self._expected_ious: list[float] = []
        self._to_review: list[str] = []
        self._reasons: Counter[str] = Counter()
        self._empty = 0

    def __enter__(self) -> "PredictionTable":
        if self._path:
            self._writer = self._stack.enter_context(csv_writer(self._path, COLUMNS))
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self._stack.close()
        else:
            # Not the error itself: an OSError of the block may concern another file, and
            # would be reported as one of the CSV file.
            self._stack.__exit__(GeneratorExit, GeneratorExit(), None)

    def add_slice(
        self,
        name: str,
        k: int | None,
        image: np.ndarray,
        mask: np.ndarray,
        confidence: Confidence,
        *,
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> None:
        """Add a slice.

        Args:
          name: the input that it comes from.
          k: its index in a volume, or None for an input that is a single slice.
          image: `[h w]`.
          mask: `[h w]`, boolean.
          confidence: of the prediction for it.
          spacing_mm: between slices, rows and columns, if known.
        """
        self._empty += not mask.any()
        self._expected_ious.append(confidence.expected_iou)
        if confidence.review:
            self._to_review.append(name if k is None else f"{name}:{k}")
            self._reasons.update(confidence.reasons)
        if k is not None:
            self._volume.add(image, mask)
        if self._writer:
            plane_mm = spacing_mm[1:] if spacing_mm else None
            row = {"input": name, "slice": k} | dataclasses.asdict(confidence)
            if confidence.review is not None:
                row["review"] = int(confidence.review)
            row["reasons"] = "; ".join(confidence.reasons)
            self._write(row | measure_slice(image, mask, spacing_mm=plane_mm))

    def end_volume(
        self,
        name: str,
        spacing_mm: tuple[float, float, float] | None,
        *,
        right: int,
        left: int,
    ) -> None:
        """Add the volume made up of the slices added since the previous volume.

        Args:
          name: the input that it comes from.
          spacing_mm: between slices, rows and columns, if known.
          right, left: voxels of each lung.
        """
        measurements = self._volume.result(spacing_mm=spacing_mm)
        voxel_ml = None if spacing_mm is None else float(np.prod(spacing_mm)) / 1000
        for side, voxels in (("right_ml", right), ("left_ml", left)):
            measurements[side] = None if voxel_ml is None else voxels * voxel_ml
        self._volume = VolumeMeasurements()
        size = f"{measurements['voxels']} voxels"
        if measurements["volume_ml"] is not None:
            right_ml, left_ml = measurements["right_ml"], measurements["left_ml"]
            size = f"{measurements['volume_ml']:.0f} ml"
            size += f" (right {right_ml:.0f}, left {left_ml:.0f})"
        density = ""
        if self._in_hu and measurements["mean_hu"] is not None:
            density = f", mean {measurements['mean_hu']:.0f} HU"
        self._volume_lines.append(f"{name}: lung {size}{density}")
        if self._writer:
            self._write({"input": name, "slice": "all"} | measurements)

    def summary(self) -> str:
        """Return a few lines on volumes, empty masks, review and expected IoU."""
        lines, ious = list(self._volume_lines), self._expected_ious
        if self._empty:
            slices = pluralize(len(ious), "slice")
            lines.append(f"no lung was found in {self._empty} of {slices}")
        if self._review_below is not None or self._to_review:
            lines += self._review_lines()
        if len(ious) == 1:
            lines.append(f"expected IoU: {ious[0]:.3f}")
        elif ious:
            median, lowest = np.median(ious), np.min(ious)
            lines.append(f"expected IoU: median {median:.3f}, lowest {lowest:.3f}")
        return "\n".join(lines)

    def _review_lines(self) -> list[str]:
        slices = pluralize(len(self._expected_ious), "slice")
        line = f"{len(self._to_review)} of {slices} to review"
        limit = ""
        if self._review_below is not None:
            limit = f" (expected IoU below {self._review_below:.3f})"
        if not self._to_review:
            return [line + limit]
        line += f": {', '.join(self._to_review[:SHOWN])}"
        if len(self._to_review) > SHOWN:
            line += f" and {len(self._to_review) - SHOWN} more"
        limits = {review.UNCERTAIN: limit, review.MEMBERS: limit}
        reasons = (
            f"{reason}{limits.get(reason, '')} in {n}"
            for reason, n in self._reasons.most_common()
        )
        return [line, f"reasons: {', '.join(reasons)}"]

    def _write(self, row: dict[str, Any]) -> None:
        if not self._in_hu:
            row |= dict.fromkeys(DENSITIES)
        self._writer.writerow(
            {column: _cell(row[column]) for column in COLUMNS if column in row}
        )


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
