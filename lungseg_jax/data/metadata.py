"""slices.csv of a data folder: of which patient a slice is, and how large its pixels are.

    name,patient,row_mm,column_mm
    ID_0000_Z_0142,P01,0.84,0.84

The file need not be there, nor all of its columns. With patients, all slices of one fall
into one split and intervals are over patients; with distances, scores are in mm.
"""

import csv
import dataclasses
import difflib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lungseg_jax.runtime.errors import UserError, combine_errors

TABLE = "slices.csv"
COLUMNS = ("name", "patient", "row_mm", "column_mm")
LEAST_MM, MOST_MM = 0.01, 100.0
MOST_BYTES = 2**26
REMEDY = "mend the row, or take the file away: it need not be there."


@dataclasses.dataclass(frozen=True)
class SliceMetadata:
    """What the table says of every slice; a column that is not there is empty.

    Attributes:
      patients: by name of the slice.
      spacings: mm between rows and between columns, by name of the slice.
    """

    patients: Mapping[str, str]
    spacings: Mapping[str, tuple[float, float]]


def read_metadata(folder: Path, names: Sequence[str]) -> SliceMetadata:
    """The table of a data folder, of its slices.

    Args:
      folder: of the data.
      names: of all slices, without suffix.

    Raises:
      UserError: it cannot be read, leaves a slice out, has one twice or one that is not
        there, or a distance that none is; all of it in one error.
    """
    file = folder / TABLE
    if not file.is_file():
        return SliceMetadata({}, {})
    head, rows = _rows(file)
    faults, found, known = [], {}, set(names)
    for line, row in rows:
        name = Path(row["name"]).stem if row["name"] not in known else row["name"]
        if name in found:
            faults.append(_fault(f"line {line} has {name} again", "each slice once."))
        elif name not in known:
            near = difflib.get_close_matches(name, names, 1, 0.8)
            hint = f"; near: {near[0]}" if near else ""
            faults.append(
                _fault(
                    f"line {line} has {name}, which is no slice{hint}", "slices alone."
                )
            )
        found[name] = row
    faults += [
        _fault(f"{n} is not in it", "every slice.") for n in names if n not in found
    ]
    if not faults:
        faults += _faults_of_values(found, head)
    if faults:
        raise combine_errors(faults, str(file))
    return SliceMetadata(
        patients={n: found[n]["patient"] for n in names} if "patient" in head else {},
        spacings={
            n: (float(found[n]["row_mm"]), float(found[n]["column_mm"])) for n in names
        }
        if "row_mm" in head
        else {},
    )


def _rows(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The head and the rows with the number of their line."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
        table = csv.DictReader(io.StringIO(text), strict=True)
        head = [column.strip() for column in table.fieldnames or []]
        table.fieldnames = head
        rows = []
        for row in table:
            short = None in row or None in row.values()
            if short:
                raise ValueError(f"line {table.line_num} has not {len(head)} values")
            rows.append((table.line_num, {k: v.strip() for k, v in row.items()}))
    except (OSError, ValueError, csv.Error) as e:
        raise UserError(
            f"{file} cannot be read: {e}.",
            rule="UTF-8 text with commas.",
            remedy=REMEDY,
        ) from e
    wrong = set(head) - set(COLUMNS)
    if "name" not in head or wrong or ("row_mm" in head) != ("column_mm" in head):
        raise UserError(
            f"{file} has the columns {', '.join(head) or 'none'}.",
            rule=f"name, and of {', '.join(COLUMNS[1:])} what is known; both distances.",
            remedy=REMEDY,
        )
    return head, rows


def _faults_of_values(found, head) -> Iterator[UserError]:
    for name, row in found.items():
        if "patient" in head and not row["patient"]:
            yield _fault(f"{name} has no patient", "a name for each patient.")
        for column in ("row_mm", "column_mm"):
            if column in head and not _is_distance(row[column]):
                yield _fault(
                    f"{name} has {column} {row[column]!r}",
                    f"distances from {LEAST_MM} to {MOST_MM:g} mm.",
                )


def _is_distance(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and LEAST_MM <= value <= MOST_MM


def _fault(what: str, rule: str) -> UserError:
    return UserError(f"{TABLE}: {what}", rule=rule, remedy=REMEDY)
