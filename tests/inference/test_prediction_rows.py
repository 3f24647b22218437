"""Cells of the table are read as what was written."""

import numpy as np
import pytest

from lungseg_jax.inference.prediction_rows import (
    COLUMNS,
    format_cell,
    parse_cell,
    read_rows,
    rows_by_input,
)
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "column,value,text",
    [
        ("slice", 0, "0"),
        ("area_px", 12345678, "12345678"),
        ("review", True, "1"),
        ("review", np.bool_(False), "0"),
        ("review", None, ""),
        ("expected_iou", 0.125, "0.125"),
        ("mean_hu", None, ""),
        ("reasons", ("low", "uneven"), "low; uneven"),
        ("reasons", (), ""),
    ],
)
def test_a_cell_is_read_as_it_was_written(column, value, text):
    assert format_cell(value) == text
    assert parse_cell(column, text) == (list(value) if column == "reasons" else value)


def test_numbers_that_are_not_finite_are_missing():
    assert format_cell(float("nan")) == "nan"
    assert parse_cell("expected_iou", "nan") is None


def test_groups_rows():
    rows = [{"input": name, "slice": str(k)} for k, name in enumerate("aba")]
    assert rows_by_input(rows) == {"a": [rows[0], rows[2]], "b": [rows[1]]}


@pytest.mark.parametrize(
    "column,cell",
    [
        ("input", "a\0b.tif"),
        ("slice", "1.0"),
        ("area_px", "1.2E+05"),
        ("mean_hu", "-812 HU"),
        ("volume_ml", "all"),
        ("reasons", "low, uneven"),  # a cell more
    ],
)
def test_refuses_a_table_with_cells_that_an_editor_has_changed(column, cell, tmp_path):
    row = dict.fromkeys(COLUMNS, "") | {"input": "b.tif"}
    text = "\n".join(",".join(r.values()) for r in (row, row | {column: cell}))
    (tmp_path / "t.csv").write_text(f"{','.join(COLUMNS)}\n{text}\n")
    with pytest.raises(
        UserError, match=r"t.csv cannot be read as a table: row 3: .+\."
    ):
        read_rows(tmp_path / "t.csv")
