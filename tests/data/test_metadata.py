"""slices.csv says all of every slice, or is refused with every fault."""

import pytest

from lungseg_jax.cli.check import describe_folder
from lungseg_jax.data.metadata import SliceMetadata, read_metadata
from lungseg_jax.data.preflight import check_folder
from lungseg_jax.runtime.errors import UserError

NAMES = ["a", "b", "c"]
GOOD = "name,patient,row_mm,column_mm\na,P1,0.8,0.9\nb.tif,P1,0.8,0.9\nc,P2,1,1.5\n"


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "slices.csv").write_text(text, encoding=encoding)
    return read_metadata(tmp_path, NAMES)


def test_what_it_says(tmp_path):
    found = table(tmp_path, GOOD)
    assert found.patients == {"a": "P1", "b": "P1", "c": "P2"}
    assert found.spacings == {"a": (0.8, 0.9), "b": (0.8, 0.9), "c": (1.0, 1.5)}


def test_it_need_not_be_there(tmp_path):
    assert read_metadata(tmp_path, NAMES) == SliceMetadata({}, {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_may_be_left_out_and_stand_in_any_order(encoding, tmp_path):
    found = table(tmp_path, "patient, name\nP1,a\nP2,b\nP3,c\n", encoding)
    assert found.patients["c"] == "P3" and not found.spacings
    found = table(tmp_path, "name,column_mm,row_mm\na,2,1\nb,2,1\nc,2,1\n", encoding)
    assert found.spacings["a"] == (1.0, 2.0) and not found.patients


@pytest.mark.parametrize(
    "text,says",
    [
        ("name,patient\na,P\nb,P\n", "c is not in it"),
        ("name,patient\na,P\nb,P\nc,P\na,P\n", "line 5 has a again"),
        ("name,patient\na,P\nb,P\nc,P\nd,P\n", "line 5 has d, which is no slice"),
        ("name,patient\na,P\nb,\nc,P\n", "b has no patient"),
        ("name,row_mm,column_mm\na,1,1\nb,0,1\nc,1,x\n", "b has row_mm '0'"),
        ("name,row_mm,column_mm\na,1,1\nb,1,1\nc,1,nan\n", "c has column_mm 'nan'"),
        ("name,row_mm\na,1\nb,1\nc,1\n", "both distances"),
        ("patient\nP\n", "has the columns patient"),
        ("name,age\na,1\n", "has the columns name, age"),
        ("name,patient\na\n", "line 2 has not 2 values"),
        ("name,patient\na,P,Q\n", "line 2 has not 2 values"),
        ("", "has the columns none"),
    ],
)
def test_faults(text, says, tmp_path):
    with pytest.raises(UserError) as e:
        table(tmp_path, text)
    assert says in str(e.value)


def test_all_faults_come_at_once(tmp_path):
    with pytest.raises(UserError) as e:
        table(tmp_path, "name,patient\na,P\na,P\nx,P\n")
    for says in ("a again", "x, which", "b is not in it", "c is not in it"):
        assert says in str(e.value)


def test_what_is_no_text(tmp_path):
    (tmp_path / "slices.csv").write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_metadata(tmp_path, NAMES)


def test_a_data_folder_with_a_table(pair_folder):
    folder = pair_folder(NAMES)
    plain = check_folder(folder)
    assert plain.table == SliceMetadata({}, {}) and "slices.csv" not in plain.digests
    (folder / "slices.csv").write_text(GOOD)
    checked = check_folder(folder)
    assert checked.table.patients["b"] == "P1"
    assert checked.fingerprint != plain.fingerprint  # another split
    assert "patients:     2" in describe_folder(checked)
    assert "spacing:      0.8 to 1.5 mm" in describe_folder(checked)
    (folder / "slices.csv").write_text("name,patient\na,P\n")
    with pytest.raises(UserError, match="b is not in it"):
        check_folder(folder)
