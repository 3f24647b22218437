"""slices.csv in a data folder: the patient and the pixel spacing of each slice.

    name,patient,row_mm,column_mm
    ID_0000_Z_0142,P01,0.84,0.84

The file is optional, and so are all columns but the name. With patients, all slices of a
patient are in one split, and intervals are over patients. With spacings, distances are
scored in mm.
"""

import csv
import dataclasses
import difflib
import io
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from lungseg_jax.data.io.formats import split_suffix
from lungseg_jax.data.io.geometry import MAX_MM, MIN_MM
from lungseg_jax.data.pairs import ROWS_WITH_HINTS, same_names
from lungseg_jax.runtime.errors import UserError, combine_errors

TABLE = "slices.csv"
COLUMNS = ("name", "patient", "row_mm", "column_mm")
MAX_BYTES = 2**26
REMEDY = "fix the row, or remove the file, which is optional."


@dataclasses.dataclass(frozen=True)
class SliceMetadata:
    """Patient and spacing of every slice; a mapping is empty if the column is missing.

    Attributes:
      patients: by name of the slice.
      spacings: mm between rows and between columns, by name of the slice.
    """

    patients: Mapping[str, str]
    spacings: Mapping[str, tuple[float, float]]

    def aspect(self, name: str) -> float:
        """Return the height of a slice's pixels over their width; 1 if it is unknown."""
        row_mm, column_mm = self.spacings.get(name, (1.0, 1.0))
        return row_mm / column_mm


def read_metadata(folder: Path, names: Sequence[str]) -> SliceMetadata:
    """Read slices.csv; without the file, all slices are without metadata.

    Args:
      folder: the data folder.
      names: of all slices, without suffix.

    Raises:
      UserError: the file cannot be read, omits or repeats a slice, has one that does not
        exist, or an implausible distance; all faults in one error.
    """
    file = folder / TABLE
    if not os.path.lexists(file):
        return SliceMetadata({}, {})
    header, rows = _read_rows(file)
    faults, row_by_name, known = [], {}, set(names)
    listed = same_names((_slice_name(row["name"], known) for _, row in rows), known)
    candidates = sorted(known.difference(listed))[:1000]
    for name, (line, row) in zip(listed, rows, strict=True):
        if name in row_by_name:
            faults.append(_fault(f"line {line} has {name} again", "each slice once."))
        elif name not in known:
            # Only for the rows that are shown: comparing all with all would take hours.
            similar = candidates if len(faults) < ROWS_WITH_HINTS else []
            near = difflib.get_close_matches(name, similar, 1, 0.8)
            hint = f"; near: {near[0]}" if near else ""
            what = f"line {line} has {name}, which is not a slice{hint}"
            faults.append(_fault(what, "only slices."))
        row_by_name[name] = row
    faults += [
        _fault(f"{name} is missing", "every slice.")
        for name in names
        if name not in row_by_name
    ]
    if not faults:
        faults += _check_values(row_by_name, header)
    if faults:
        raise combine_errors(faults, str(file))
    patients, spacings = {}, {}
    for name in names:
        row = row_by_name[name]
        if "patient" in header:
            patients[name] = row["patient"]
        if "row_mm" in header:
            spacings[name] = float(row["row_mm"]), float(row["column_mm"])
    return SliceMetadata(patients, spacings)


def _slice_name(text: str, known: Collection[str]) -> str:
    """Return the name of a slice, which may be given with the suffix of its file."""
    suffix = "" if text in known else split_suffix(Path(text))[1]
    return text[: len(text) - len(suffix)]


def _read_rows(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the column names, and the rows with their line numbers."""
    try:
        if not file.is_file():
            raise ValueError("it is a folder, or a link to nothing")
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        # Spreadsheets write a byte order mark.
        text = file.read_text(encoding="utf-8-sig")
        table = csv.DictReader(io.StringIO(text), strict=True)
        header = [column.strip() for column in table.fieldnames or []]
        table.fieldnames = header
        rows = []
        for row in table:
            if None in row or None in row.values():
                raise ValueError(
                    f"line {table.line_num} does not have {len(header)} values"
                )
            rows.append((table.line_num, {k: v.strip() for k, v in row.items()}))
    except (OSError, ValueError, csv.Error) as e:
        raise UserError(
            f"{file} cannot be read: {e}.",
            rule="comma-separated UTF-8 text.",
            remedy=REMEDY,
        ) from e
    has_others = set(header) - set(COLUMNS) or len(set(header)) < len(header)
    has_one_spacing = ("row_mm" in header) != ("column_mm" in header)
    if "name" not in header or has_others or has_one_spacing:
        raise UserError(
            f"{file} has the columns {', '.join(header) or '(none)'}.",
            rule=f"name, and any of {', '.join(COLUMNS[1:])}, each once, in lower case and "
            "separated by commas; both distances or neither.",
            remedy="fix the first line; a file without columns of use can be removed. "
            "Splits are drawn, by --config.data.split_seed.",
        )
    return header, rows


def _check_values(
    row_by_name: Mapping[str, Mapping[str, str]], header: Sequence[str]
) -> Iterator[UserError]:
    for name, row in row_by_name.items():
        if "patient" in header and not row["patient"]:
            yield _fault(f"{name} has no patient", "a name for each patient.")
        for column in ("row_mm", "column_mm"):
            if column in header and not _is_distance(row[column]):
                yield _fault(
                    f"{name} has {column} {row[column]!r}",
                    f"distances from {MIN_MM} to {MAX_MM:g} mm.",
                )


def _is_distance(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and MIN_MM <= value <= MAX_MM


def _fault(what: str, rule: str) -> UserError:
    return UserError(f"{TABLE}: {what}", rule=rule, remedy=REMEDY)
