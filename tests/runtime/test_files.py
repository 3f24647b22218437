"""Paths of the user, and files that appear only when complete."""

import os
from pathlib import Path

import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import (
    atomic_folder,
    atomic_write,
    csv_writer,
    read_json,
    require_utf8,
    user_path,
    write_json,
)


class Interruption(Exception):
    """Raised in the middle of writing."""


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


# --- paths ---


def test_expands_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert user_path("~/data") == Path("/home/ada/data")
    assert user_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    "text,message",
    [
        ("~no-such-user/data", "~no-such-user"),
        ("a\0b", "not a valid path"),
        ("\ud800", "not a valid path"),
    ],
)
def test_refuses_text_that_is_not_a_path(text, message):
    with pytest.raises(UserError, match=message) as e:
        user_path(text)
    assert e.value.rule


def test_refuses_names_that_are_not_utf8():
    assert require_utf8(Path("scan é.nii")) == "scan é.nii"
    with pytest.raises(UserError, match="not valid UTF-8") as e:
        require_utf8(Path(os.fsdecode(b"scan \xe9.nii")))
    assert e.value.remedy == "rename it."


# --- complete or absent ---


def test_atomic_write_replaces_a_file_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.csv"
    for text in ("first", "second"):
        before = contents(path.parent) if path.exists() else None
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".csv" and temporary.parent == path.parent
            temporary.write_text(text)
            if before:
                assert path.read_text() == before["a.csv"]
        assert contents(path.parent) == {"a.csv": text}


def test_an_exception_in_atomic_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    for expected in ({}, {"a.txt": "old"}):
        with pytest.raises(Interruption), atomic_write(path) as temporary:
            temporary.write_text("half")
            raise Interruption
        assert contents(tmp_path) == expected
        path.write_text("old")


@pytest.mark.parametrize(
    "path,reason", [("file/a.txt", "Not a directory|File exists"), ("a.txt", "disk")]
)
def test_an_os_error_in_atomic_write_becomes_a_user_error(tmp_path, path, reason):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{path} cannot be written: .*({reason})"):
        with atomic_write(tmp_path / path) as temporary:
            temporary.write_text("half")
            raise OSError("the disk is full")
    assert contents(tmp_path) == {"file": ""}


def test_atomic_folder_appears_complete_with_ordinary_permissions(tmp_path):
    path = tmp_path / "new" / "bundle"
    with atomic_folder(path) as temporary:
        assert not path.exists() and temporary.parent == path.parent
        (temporary / "a").write_text("1")
    assert contents(path) == {"a": "1"}
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]
    (tmp_path / "ordinary").mkdir()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_an_exception_in_atomic_folder_leaves_nothing(tmp_path):
    with pytest.raises(Interruption), atomic_folder(tmp_path / "bundle") as temporary:
        (temporary / "a").write_text("half")
        raise Interruption
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_replaced(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "old").write_text("old")
    with pytest.raises(UserError, match="bundle cannot be written"):
        with atomic_folder(bundle) as temporary:
            (temporary / "new").write_text("new")
    assert contents(bundle) == {"old": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_csv_writer_escapes_names_and_appears_complete(tmp_path):
    path = tmp_path / "scores.csv"
    with csv_writer(path, ["slice", "iou"]) as rows:
        rows.writerow({"slice": 'a,"b"', "iou": 0.5})
        rows.writerow({"slice": os.fsdecode(b"\xe9"), "iou": 1})
        assert not path.exists()
    assert path.read_bytes() == b'slice,iou\n"a,""b""",0.5\n\\udce9,1\n'
    with pytest.raises(Interruption), csv_writer(path, ["slice"]):
        raise Interruption
    assert path.read_bytes().startswith(b"slice,iou\n")
    assert [p.name for p in tmp_path.iterdir()] == ["scores.csv"]


def test_csv_writer_refuses_an_unknown_column(tmp_path):
    with pytest.raises(ValueError, match="dice"):
        with csv_writer(tmp_path / "a.csv", ["iou"]) as rows:
            rows.writerow({"iou": 1, "dice": 1})
    assert not list(tmp_path.iterdir())


def test_json_is_written_indented_and_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert (tmp_path / "a.json").read_text() == (
        '{\n  "\\u00e9": [\n    1,\n    null\n  ]\n}\n'
    )
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"score": float("nan")})  # is not JSON
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}


@pytest.mark.parametrize("content", ["{", "\xff", "[" * 10**5])
def test_refuses_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="a.json is damaged") as e:
        read_json(tmp_path / "a.json")
    assert e.value.remedy == "restore it from a copy."


def test_refuses_missing_json(tmp_path):
    with pytest.raises(UserError, match="a.json cannot be read: No such file"):
        read_json(tmp_path / "a.json")
