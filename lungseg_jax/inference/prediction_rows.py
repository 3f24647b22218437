"""The rows of a prediction table as they are in its CSV file: columns, cells, reading."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.runtime.errors import UserError

COLUMNS = (
    "input",
    "slice",  # from 0, feet to head; VOLUME_ROW for a volume
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
VOLUME_ROW = "all"  # instead of the number of a slice, in the row of a volume
Row = Mapping[str, str]
_INTEGERS = ("slice", "area_px")
_SEPARATOR = "; "  # of reasons


def read_rows(path: Path) -> dict[str, list[Row]]:
    """Read the rows of a table by input, without volumes that are not complete.

    Raises:
      UserError: the file cannot be read, or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = tuple(reader.fieldnames or ())
        if columns == COLUMNS:
            _check_cells(rows)
            rows = [row for row in rows if _is_complete(row)]
    except (OSError, ValueError, csv.Error) as e:
        raise UserError(
            f"{path} cannot be read as a table: {e}.",
            rule="its cells are as this command wrote them.",
            remedy="restore it from a copy, or name another file with --csv.",
        ) from e
    if columns != COLUMNS:
        raise UserError(
            f"{path} is not a table that this command has written.",
            rule=f"its columns are {','.join(COLUMNS)}.",
            remedy="name another file with --csv.",
        )
    return {
        name: rows
        for name, rows in rows_by_input(rows).items()
        if rows[-1]["slice"] in (VOLUME_ROW, "")  # a volume, or a slice
    }


def _check_cells(rows: Iterable[Row]) -> None:
    """Check the cells of a table, which a spreadsheet may have changed.

    Raises:
      ValueError: a name is not a path, a number is not one, or a row has too many cells.
    """
    for number, row in enumerate(rows, start=2):  # the header is row 1
        try:
            if _is_complete(row):
                _check_row(row)
        except ValueError as e:
            raise ValueError(f"row {number}: {e}") from e


def _is_complete(row: Row) -> bool:
    """Whether a row has all cells; a command that was killed may have left half of one."""
    return None not in row.values()


def _check_row(row: Row) -> None:
    if None in row:
        raise ValueError("there are more cells than columns")
    if "\0" in row["input"]:
        raise ValueError("a name has zero bytes")
    for column in COLUMNS[1:]:
        if not (column == "slice" and row[column] == VOLUME_ROW):
            parse_cell(column, row[column])


def rows_by_input(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each input, by its name."""
    by_input: dict[str, list[Row]] = {}
    for row in rows:
        by_input.setdefault(row["input"], []).append(row)
    return by_input


def format_cell(value: Any) -> str:
    """Return a value as it is in the table; "" for None."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return _SEPARATOR.join(value)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def parse_cell(column: str, text: str) -> Any:
    """Return the value of a cell; None if it is empty, or not a finite number."""
    if column == "reasons":
        return text.split(_SEPARATOR) if text else []
    if not text:
        return None
    if column == "review":
        return text == "1"
    if column in _INTEGERS:
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else None
