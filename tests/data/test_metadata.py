"""slices.csv describes every slice, or is refused with all its faults."""

from pathlib import Path

import pytest

from lungseg_jax.cli.check import describe_folder
from lungseg_jax.data import metadata
from lungseg_jax.data.metadata import SliceMetadata, read_metadata
from lungseg_jax.data.preflight import check_folder
from lungseg_jax.runtime.errors import UserError

NAMES = ["a", "b", "c"]
GOOD = "name,patient,row_mm,column_mm\na,P1,0.8,0.9\nb.tif,P1,0.8,0.9\nc,P2,1,1.5\n"


def read(tmp_path, text, encoding="utf-8"):
    (tmp_path / "slices.csv").write_text(text, encoding=encoding)
    return read_metadata(tmp_path, NAMES)


def test_reads_patients_and_spacings(tmp_path):
    metadata = read(tmp_path, GOOD)
    assert metadata.patients == {"a": "P1", "b": "P1", "c": "P2"}
    assert metadata.spacings == {"a": (0.8, 0.9), "b": (0.8, 0.9), "c": (1.0, 1.5)}


def test_the_file_is_optional(tmp_path):
    assert read_metadata(tmp_path, NAMES) == SliceMetadata({}, {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_optional_and_in_any_order(encoding, tmp_path):
    metadata = read(tmp_path, "patient, name\nP1,a\nP2,b\nP3,c\n", encoding)
    assert metadata.patients["c"] == "P3" and not metadata.spacings
    metadata = read(tmp_path, "name,column_mm,row_mm\na,2,1\nb,2,1\nc,2,1\n", encoding)
    assert metadata.spacings["a"] == (1.0, 2.0) and not metadata.patients


@pytest.mark.parametrize(
    "text,message",
    [
        ("name,patient\na,P\nb,P\n", "c is missing"),
        ("name,patient\na,P\nb,P\nc,P\na,P\n", "line 5 has a again"),
        ("name,patient\na,P\nb,P\nc,P\nd,P\n", "line 5 has d, which is not a slice"),
        ("name,patient\na,P\nb,\nc,P\n", "b has no patient"),
        ("name,row_mm,column_mm\na,1,1\nb,0,1\nc,1,x\n", "b has row_mm '0'"),
        ("name,row_mm,column_mm\na,1,1\nb,1,1\nc,1,nan\n", "c has column_mm 'nan'"),
        ("name,row_mm\na,1\nb,1\nc,1\n", "both distances"),
        ("patient\nP\n", "has the columns patient"),
        ("name,age\na,1\n", "has the columns name, age"),
        ("name,patient\na\n", "line 2 does not have 2 values"),
        ("name,patient\na,P,Q\n", "line 2 does not have 2 values"),
        ("", "has the columns (none)"),
        ("name;patient\na;P\n", "separated by commas"),
        ("name,patient\nx/a,P\nb,P\nc,P\n", "line 2 has x/a, which is not a slice"),
        ("name,patient\na.1,P\nb,P\nc,P\n", "line 2 has a.1, which is not a slice"),
        (
            "name,patient,patient\na,P,Q\nb,P,Q\nc,P,Q\n",
            "columns name, patient, patient",
        ),
    ],
)
def test_refuses_faulty_rows_and_columns(text, message, tmp_path):
    with pytest.raises(UserError) as e:
        read(tmp_path, text)
    assert message in str(e.value)


def test_reports_all_faults_at_once(tmp_path):
    with pytest.raises(UserError) as e:
        read(tmp_path, "name,patient\na,P\na,P\nx,P\n")
    for message in ("a again", "x, which", "b is missing", "c is missing"):
        assert message in str(e.value)


def test_few_rows_are_compared_with_few_names(tmp_path, monkeypatch):
    """Comparing 100,000 with 100,000 would take hours."""
    compared = []
    monkeypatch.setattr(
        metadata.difflib,
        "get_close_matches",
        lambda name, names, *_: compared.extend(names) or names[:1],
    )
    names = [f"slice_{i:04}" for i in range(3000)]
    (tmp_path / "slices.csv").write_text("name\n" + "".join(f"{n}x\n" for n in names))
    with pytest.raises(
        UserError, match="slice_0000x, .* not a slice; near: slice_0000"
    ):
        read_metadata(tmp_path, names)
    assert len(compared) == 20 * 1000


@pytest.mark.parametrize("make", [Path.mkdir, lambda file: file.symlink_to("gone.csv")])
def test_refuses_what_is_not_a_file(make, tmp_path):
    """Without its patients, they would be in several splits."""
    make(tmp_path / "slices.csv")
    with pytest.raises(
        UserError, match="slices.csv cannot be read: it is a folder, or"
    ):
        read_metadata(tmp_path, NAMES)


def test_refuses_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "slices.csv").write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_metadata(tmp_path, NAMES)


def test_the_check_of_a_folder_includes_the_table(pair_folder):
    folder = pair_folder(NAMES)
    plain = check_folder(folder)
    assert plain.metadata == SliceMetadata({}, {}) and "slices.csv" not in plain.digests
    (folder / "slices.csv").write_text(GOOD)
    checked = check_folder(folder)
    assert checked.metadata.patients["b"] == "P1"
    assert checked.fingerprint != plain.fingerprint  # another split
    assert "patients:     2" in describe_folder(checked)
    assert "spacing:      0.8 to 1.5 mm" in describe_folder(checked)
    (folder / "slices.csv").write_text("name,patient\na,P\n")
    with pytest.raises(UserError, match="b is missing"):
        check_folder(folder)
