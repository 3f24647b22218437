"""Images are written exactly, atomically, or not at all."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg_jax.data.io.images import write_image
from lungseg_jax.runtime.errors import UserError

WRITABLE = [
    (".tif", "uint8"),
    (".tif", "int16"),
    (".tif", "uint16"),
    (".tif", "float32"),
    (".tiff", "int16"),
    (".TIF", "int16"),
    (".png", "uint8"),
    (".png", "uint16"),
]
REFUSED = [
    # OpenCV itself would silently write these two as uint8.
    (".png", "int16", "cannot be stored as .png; allowed: uint8, uint16"),
    (".png", "float32", "cannot be stored as .png; allowed: uint8, uint16"),
    (".tif", "float64", "cannot be stored as .tif; allowed: uint8, int16"),
    (".tif", "int32", "cannot be stored as .tif"),
    (".tif", "bool", "cannot be stored as .tif"),
    (".tif", ">i2", "dtype >i2 cannot be stored as .tif"),
    (".jpg", "uint8", "suffix '.jpg' must be one of .tif, .tiff, .png"),
    ("", "uint8", "suffix '' must be one of"),
]


def some_array(dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).integers(-3000, 3000, (37, 61))  # [37 61]
    return values.astype(dtype)


def tiff_tags(content: bytes) -> dict[int, int]:
    """Return tag -> first value, of a little-endian TIFF with one directory."""
    order, magic, offset = struct.unpack_from("<2sHI", content)
    assert (order, magic) == (b"II", 42)
    (count,) = struct.unpack_from("<H", content, offset)
    tags = {}
    for i in range(count):
        tag, kind, values = struct.unpack_from("<HHI", content, offset + 2 + 12 * i)
        form = {1: "<B", 3: "<H", 4: "<I"}.get(kind)
        if form is not None and values == 1:
            (tags[tag],) = struct.unpack_from(form, content, offset + 10 + 12 * i)
    assert struct.unpack_from("<I", content, offset + 2 + 12 * count) == (0,)
    return tags


@pytest.mark.parametrize("suffix,dtype", WRITABLE)
def test_reads_back_exactly(tmp_path, suffix, dtype):
    path, array = tmp_path / f"slice{suffix}", some_array(dtype)
    write_image(path, array)
    again = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "dtype,bits,sample_format",
    [("uint8", 8, 1), ("uint16", 16, 1), ("int16", 16, 2), ("float32", 32, 3)],
)
def test_writes_uncompressed_one_strip_tiffs(tmp_path, dtype, bits, sample_format):
    path, array = tmp_path / "slice.tif", some_array(dtype)
    write_image(path, array)
    content = path.read_bytes()
    tags = tiff_tags(content)
    assert tags[256] == 61 and tags[257] == 37  # width, height
    assert tags[258] == bits and tags[339] == sample_format
    assert tags[259] == 1  # no compression
    # One strip, whose bytes are the pixels. A tag with more values is not in the dict.
    assert tags[279] == array.nbytes
    assert content[tags[273] :][: array.nbytes] == array.tobytes()


@pytest.mark.parametrize("suffix,dtype,message", REFUSED)
def test_refuses_dtypes_that_the_format_cannot_hold(tmp_path, suffix, dtype, message):
    path = tmp_path / f"slice{suffix}"
    with pytest.raises(ValueError) as refusal:
        write_image(path, some_array(dtype))
    assert str(path) in str(refusal.value)
    assert message in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(4,), (4, 4, 3), (0, 4), (4, 0), ()])
def test_refuses_arrays_that_are_not_one_channel(tmp_path, shape):
    with pytest.raises(ValueError, match=r"must be a non-empty \[height width\]"):
        write_image(tmp_path / "slice.tif", np.zeros(shape, np.int16))


def test_writes_strided_views(tmp_path):
    view = some_array("int16")[::-1, ::-2]
    write_image(tmp_path / "slice.tif", view)
    again = cv2.imread(str(tmp_path / "slice.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, view)


def test_creates_missing_folders(tmp_path):
    write_image(tmp_path / "new" / "slice.tif", some_array("int16"))
    assert (tmp_path / "new" / "slice.tif").is_file()


def test_refuses_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="slice.tif cannot be written"):
        write_image(tmp_path / "file" / "slice.tif", some_array("int16"))


def refuse(suffix, array, settings):
    return False, None


def raise_error(suffix, array, settings):
    raise cv2.error("no more paper")


def full_disk(path, content):
    with open(path, "wb") as file:
        file.write(b"II*")
    raise OSError(28, "slice.tif: no space left on device")


@pytest.mark.parametrize(
    "owner,name,broken",
    [
        (cv2, "imencode", refuse),
        (cv2, "imencode", raise_error),
        (Path, "write_bytes", full_disk),
    ],
)
def test_a_failed_write_keeps_the_existing_file(
    tmp_path, monkeypatch, owner, name, broken
):
    path, old = tmp_path / "slice.tif", some_array("int16")
    write_image(path, old)
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(UserError, match="slice.tif cannot be written"):
        write_image(path, old + 1)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["slice.tif"]
    again = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, old)


def test_writes_a_name_that_is_not_utf8(tmp_path):
    """Archives of older systems have such names; OpenCV's own writer crashes on them."""
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write_image(path, some_array("uint8"))
    content = np.frombuffer(path.read_bytes(), np.uint8)
    again = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, some_array("uint8"))


def test_replaces_an_existing_file(tmp_path):
    path = tmp_path / "slice.tif"
    for array in (some_array("int16"), some_array("int16") + 1):
        write_image(path, array)
    again = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, some_array("int16") + 1)
