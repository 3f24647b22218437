"""Per-slice and per-volume prediction results, as CSV and as a summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.inference.prediction_rows import (
    COLUMNS,
    DENSITIES,
    VOLUME_ROW,
    Row,
    format_cell,
    rows_by_input,
)
from lungseg_jax.inference.prediction_summary import PredictionSummary
from lungseg_jax.runtime.files import csv_writer


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
      rows: of all inputs before the last `flush`, if collected.
      volumes: the rows of volumes, with the number of their "slices" and those "to_review".
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
        self.volumes: list[Mapping[str, Any]] = []
        self._collect = collect
        self._path, self._in_hu = path, domain == "HU"
        self._summary = PredictionSummary(review_below)
        self._unwritten: list[Row] = []
        self._exists = False
        for rows in rows_by_input(kept).values():
            self._add_formatted(rows)

    def __enter__(self) -> "PredictionTable":
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self.flush()

    def add(self, *rows: dict[str, Any]) -> None:
        """Add all rows of an input: one of `slice_row`, or those of `VolumeRows`."""
        if not self._in_hu:
            rows = [row | dict.fromkeys(DENSITIES) for row in rows]
        for row in rows:
            self._summary.add(row)
        self._add_formatted(
            [{name: format_cell(row.get(name)) for name in COLUMNS} for row in rows]
        )

    def summary(self) -> str:
        """Return the lines of `PredictionSummary` on what was added."""
        return self._summary.text()

    def _add_formatted(self, rows: Sequence[Row]) -> None:
        *slices, last = rows
        if last["slice"] == VOLUME_ROW:
            to_review = sum(row["review"] == "1" for row in slices)
            counts = {"slices": len(slices), "to_review": to_review}
            self.volumes.append(dict(last) | counts)
        self._unwritten += rows

    def flush(self) -> None:
        """Write the rows that are not in the file yet."""
        if self._path:
            append = self._exists and self._path.exists()  # it may have been moved away
            with csv_writer(self._path, COLUMNS, append=append) as writer:
                writer.writerows(self._unwritten)
        if self._collect:
            self.rows += self._unwritten
        self._exists = True
        self._unwritten = []
