"""Per-slice and per-volume prediction results, as CSV and as a summary."""

import contextlib
import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.inference import review
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.measurements import (
    VolumeMeasurements,
    measure_slice,
    voxel_ml,
)
from lungseg_jax.inference.prediction_rows import (
    COLUMNS,
    DENSITIES,
    WHOLE,
    Row,
    format_cell,
    parse_cell,
)
from lungseg_jax.inference.slice_names import name_slices
from lungseg_jax.runtime.errors import pluralize
from lungseg_jax.runtime.files import csv_writer


@dataclasses.dataclass
class _Results:
    """What a table has collected."""

    rows: list[Row] = dataclasses.field(default_factory=list)  # unwritten
    flags: list[bool] = dataclasses.field(default_factory=list)  # of the volume at hand
    volumes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    volume_lines: list[str] = dataclasses.field(default_factory=list)
    expected_ious: list[float] = dataclasses.field(default_factory=list)
    to_review: list[tuple[str, int | None]] = dataclasses.field(default_factory=list)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    empty: int = 0

    def copy(self) -> "_Results":
        return _Results(**{name: copy.copy(v) for name, v in vars(self).items()})


class PredictionTable:
    """Collects the results of predictions and writes them to a CSV file.

    It is a context manager: the file appears at the end, if the block succeeds, and is
    complete after each `flush`.

    Args:
      path: the CSV file, or None for a summary only.
      domain: the kind of intensities, a key of `data.intensity.DOMAINS`. Densities are
        reported only for Hounsfield units.
      review_below: the expected IoU below which a slice should be reviewed, or None.
      kept: rows of an earlier table, which come first; see `read_rows`.
      collect: whether to keep all rows in memory.

    Attributes:
      rows: of everything that is complete, if collected.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        domain: str = "HU",
        review_below: float | None = None,
        kept: Sequence[Row] = (),
        collect: bool = False,
    ):
        self.rows: list[Row] = []
        self._collect = collect
        self._path, self._in_hu = path, domain == "HU"
        self._review_below = review_below
        self._measurements = VolumeMeasurements()
        self._results = _Results()
        self._exists = False
        for row in kept:
            self._add_row(row)

    @property
    def volumes(self) -> Sequence[Mapping[str, Any]]:
        """The rows of volumes, with the number of their "slices" and those "to_review"."""
        return self._results.volumes

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self.flush()

    @contextlib.contextmanager
    def volume(self) -> Iterator[None]:
        """Add a volume in the block, as a whole or, if the block fails, not at all."""
        before = self._results.copy()
        self._measurements = VolumeMeasurements()
        try:
            yield
        except BaseException:
            self._results = before
            raise

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
        results = self._results
        results.empty += not mask.any()
        results.expected_ious.append(confidence.expected_iou)
        if confidence.review:
            results.to_review.append((name, k))
            results.reasons.update(confidence.reasons)
        if k is not None:
            self._measurements.add(image, mask)
        plane_mm = spacing_mm[1:] if spacing_mm else None
        row = {"input": name, "slice": k} | vars(confidence)
        self._add(row | measure_slice(image, mask, spacing_mm=plane_mm))

    def end_volume(
        self,
        name: str,
        spacing_mm: tuple[float, float, float] | None,
        *,
        right: int,
        left: int,
    ) -> None:
        """Add the volume made up of the slices that `volume` has added so far.

        Args:
          name: the input that it comes from.
          spacing_mm: between slices, rows and columns, if known.
          right, left: voxels of each lung.
        """
        measurements = self._measurements.result(spacing_mm=spacing_mm)
        one_ml = voxel_ml(spacing_mm)
        for side, voxels in (("right_ml", right), ("left_ml", left)):
            measurements[side] = None if one_ml is None else voxels * one_ml
        size = f"{measurements['voxels']} voxels"
        if measurements["volume_ml"] is not None:
            right_ml, left_ml = measurements["right_ml"], measurements["left_ml"]
            size = f"{measurements['volume_ml']:.0f} ml"
            size += f" (right {right_ml:.0f}, left {left_ml:.0f})"
        density = ""
        if self._in_hu and measurements["mean_hu"] is not None:
            density = f", mean {measurements['mean_hu']:.0f} HU"
        self._results.volume_lines.append(f"{name}: lung {size}{density}")
        self._add({"input": name, "slice": WHOLE} | measurements)

    def summary(self) -> str:
        """Return a few lines on volumes, empty masks, review and expected IoU.

        There are none if no slice was added, as all masks of a resumed command were kept.
        """
        lines = list(self._results.volume_lines)
        ious = self._results.expected_ious
        if not ious:
            return ""
        if self._results.empty:
            slices = pluralize(len(ious), "slice")
            lines.append(f"no lung was found in {self._results.empty} of {slices}")
        if self._review_below is not None or self._results.to_review:
            lines += self._review_lines()
        if len(ious) == 1:
            lines.append(f"expected IoU: {ious[0]:.3f}")
        else:
            median, lowest = np.median(ious), np.min(ious)
            lines.append(f"expected IoU: median {median:.3f}, lowest {lowest:.3f}")
        return "\n".join(lines)

    def _review_lines(self) -> list[str]:
        slices = pluralize(len(self._results.expected_ious), "slice")
        to_review = self._results.to_review
        line = f"{len(to_review)} of {slices} to review"
        limit = ""
        if self._review_below is not None:
            limit = f" (expected IoU below {self._review_below:.3f})"
        if not to_review:
            return [line + limit]
        line += f": {name_slices(to_review)}"
        limits = {review.UNCERTAIN: limit, review.MEMBERS: limit}
        reasons = (
            f"{reason}{limits.get(reason, '')} in {n}"
            for reason, n in self._results.reasons.most_common()
        )
        return [line, f"reasons: {', '.join(reasons)}"]

    def _add(self, row: dict[str, Any]) -> None:
        if not self._in_hu:
            row |= dict.fromkeys(DENSITIES)
        self._add_row({column: format_cell(row.get(column)) for column in COLUMNS})

    def _add_row(self, row: Row) -> None:
        flags = self._results.flags
        if row["slice"] == WHOLE:
            counts = {"slices": len(flags), "to_review": sum(flags)}
            self._results.volumes.append(dict(row) | counts)
            flags.clear()
        elif row["slice"]:
            flags.append(bool(parse_cell("review", row["review"])))
        self._results.rows.append(row)

    def flush(self) -> None:
        """Write the rows that are not in the file yet."""
        if self._path:
            append = self._exists and self._path.exists()  # it may have been moved away
            with csv_writer(self._path, COLUMNS, append=append) as writer:
                writer.writerows(self._results.rows)
        if self._collect:
            self.rows += self._results.rows
        self._exists = True
        self._results.rows = []
