"""The table of formats, and how to add one."""

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg_jax.data.io import formats
from lungseg_jax.data.io.formats import EITHER, SLICE, VOLUME, Format
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.data.pairs import find_pairs, list_images, read_slice
from lungseg_jax.data.preflight import check_folder
from lungseg_jax.evaluation.comparison import compare_masks, pair_masks
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.runtime.errors import UserError

IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_suffixes_by_kind():
    assert formats.suffixes(SLICE) == (".tif", ".tiff", ".png")
    assert formats.suffixes(VOLUME) == (
        ".nii",
        ".nii.gz",
        ".nrrd",
        ".seg.nrrd",
        ".nhdr",
        ".mha",
        ".mhd",
    )
    assert formats.suffixes(EITHER) == (".npy",)
    assert formats.suffixes() == tuple(formats.FORMATS)
    detached = {".nhdr", ".mhd"}
    assert set(formats.suffixes()) - set(formats.suffixes(writable=True)) == detached


@pytest.mark.parametrize(
    "name,expected",
    [
        ("a.tif", ("a", ".tif")),
        ("a.b.NII.GZ", ("a.b", ".nii.gz")),
        ("a.nii", ("a", ".nii")),
        ("a.gz", ("a.gz", "")),
        ("IM0001", ("IM0001", "")),
    ],
)
def test_split_suffix(name, expected, tmp_path):
    assert formats.split_suffix(tmp_path / name) == expected


def test_kind_of_a_name():
    names = {"A.NII.GZ": VOLUME, "b.mha": VOLUME, "a.tif": SLICE, "c.npy": EITHER}
    for name, kind in names.items():
        assert formats.kind_of(Path(name)) == kind
    assert formats.kind_of(Path("nii")) == ""


def test_an_array_is_a_volume_by_its_shape(tmp_path):
    for name, shape in (("slice", (4, 4)), ("volume", (2, 4, 4))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape))
    assert not formats.is_volume(tmp_path / "slice.npy")
    assert formats.is_volume(tmp_path / "volume.npy")
    assert formats.is_volume(Path("none.nii")) and not formats.is_volume(Path("a.tif"))


def archive():
    file = io.BytesIO()
    np.savez(file, IMAGE)
    return file.getvalue()


def npy(header):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        archive(),
        b"PK\x03\x04 and no archive",
        npy(b"{'descr': '<f4', 'shape': (3, 4"),
        npy(b"-" * 9000 + b"1"),
        npy(b"{'descr': ('<f4',), 'fortran_order': False, 'shape': (3, 4)}"),
    ],
)
def test_refuses_a_file_that_does_not_hold_an_array(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    for read in (formats.read_slice_array, formats.is_volume):
        with pytest.raises(UserError, match="a.npy is damaged, or not an array"):
            read(tmp_path / "a.npy")


def test_refuses_files_of_another_kind(tmp_path):
    for read in (formats.read_slice_array, formats.read_slice_mask):
        with pytest.raises(UserError, match="a.jpg is not in a known format"):
            read(tmp_path / "a.jpg")
        with pytest.raises(UserError, match="a.nii is not a slice") as e:
            read(tmp_path / "a.nii")
        assert e.value.rule == "one of .tif, .tiff, .png, .npy."
    np.save(tmp_path / "volume.npy", IMAGE[None])
    with pytest.raises(UserError, match=r"holds uint8\[1, 3, 4\]") as e:
        formats.read_slice_array(tmp_path / "volume.npy")
    assert e.value.rule == "numbers: a slice [h w]."
    with pytest.raises(UserError, match="a.png is not a volume"):
        formats.open_volume(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.nii cannot be written"):
        formats.write_slice(tmp_path / "a.nii", IMAGE)


@pytest.mark.parametrize("suffix", formats.suffixes(SLICE, EITHER))
def test_slices_are_read_as_they_were_written(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    formats.write_slice(path, IMAGE)
    np.testing.assert_array_equal(formats.read_slice_array(path), IMAGE)
    formats.write_slice(path, (IMAGE > 5) * np.uint8(255))
    np.testing.assert_array_equal(formats.read_slice_mask(path), IMAGE > 5)


# --- a new format is a reader and a row ---


def read_bmp(path):
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def write_bmp(path, array):
    assert cv2.imwrite(str(path), array)


@pytest.fixture
def bmp(monkeypatch):
    row = Format(read_slice=read_bmp, write_slice=write_bmp)
    monkeypatch.setitem(formats.FORMATS, ".bmp", row)


def test_a_data_folder_may_hold_an_added_slice_format(bmp, tmp_path):
    for folder in ("2d_images", "2d_masks"):
        (tmp_path / folder).mkdir()
    write_bmp(tmp_path / "2d_images" / "a.BMP", IMAGE)
    write_bmp(tmp_path / "2d_masks" / "a.bmp", (IMAGE > 5) * np.uint8(255))
    (pair,) = find_pairs(tmp_path)
    image_slice = read_slice(pair)
    assert image_slice.name == "a"
    np.testing.assert_array_equal(image_slice.image, IMAGE)
    np.testing.assert_array_equal(image_slice.mask, IMAGE > 5)
    assert check_folder(tmp_path).dtype == "uint8"


def test_predict_and_compare_know_an_added_slice_format(bmp, tmp_path):
    for folder in ("in", "truth"):
        (tmp_path / folder).mkdir()
        write_bmp(tmp_path / folder / "a.bmp", (IMAGE > 5) * np.uint8(255))
    (task,) = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert task.target == tmp_path / "out" / "a.bmp" and not task.is_volume
    (task,) = plan_outputs(tmp_path / "in", tmp_path / "out", format=".png")
    assert task.target == tmp_path / "out" / "a.png"
    write_image(tmp_path / "a.png", IMAGE)
    (task,) = plan_outputs(tmp_path / "a.png", tmp_path / "out", format="bmp")
    assert task.target == tmp_path / "out" / "a.bmp"
    with pair_masks(tmp_path / "truth", tmp_path / "in") as pairs:
        assert pairs.count == 1
        assert compare_masks(pairs, tolerance=1.0)["scores"]["iou_pooled"] == 1


def test_masks_of_a_format_without_a_writer_need_another(monkeypatch, tmp_path):
    monkeypatch.setitem(formats.FORMATS, ".bmp", Format(read_slice=read_bmp))
    (tmp_path / "in").mkdir()
    write_bmp(tmp_path / "in" / "a.bmp", IMAGE)
    with pytest.raises(UserError, match="cannot be .*a.bmp"):
        plan_outputs(tmp_path / "in", tmp_path / "out")
    (task,) = plan_outputs(tmp_path / "in", tmp_path / "out", format=".tif")
    assert task.target.name == "a.tif"
    with pytest.raises(UserError, match="cannot be written"):
        formats.write_slice(tmp_path / "b.bmp", IMAGE)


@contextlib.contextmanager
def open_raw(path):
    """A volume format of two 3 x 4 slices, after a header of three bytes."""
    array = np.fromfile(path, np.uint8, offset=3).reshape(-1, 3, 4)
    geometry = Geometry((4, 3, len(array)), spacing=(0.5, 0.5, 2.0))
    yield Volume(str(path), geometry, lambda axis, index: array[index])


def test_an_added_volume_format_is_read_and_written(monkeypatch, tmp_path):
    row = Format(open_volume=open_raw, volume_header=lambda *_: b"raw")
    monkeypatch.setitem(formats.FORMATS, ".raw", row)
    (tmp_path / "in.raw").write_bytes(b"raw" + IMAGE.tobytes() + IMAGE[::-1].tobytes())
    (task,) = plan_outputs(tmp_path / "in.raw", tmp_path / "out.raw")
    assert task.is_volume
    for target in ("out.raw", "out.nii.gz"):
        with formats.open_volume(task.source) as volume:
            with VolumeWriter(tmp_path / target, volume, np.uint8) as out:
                for k, image in enumerate(volume.slices()):
                    out.write(k, image)
        with formats.open_volume(tmp_path / target) as volume:
            assert volume.spacing_mm == (2.0, 0.5, 0.5)
            np.testing.assert_array_equal(list(volume.slices()), [IMAGE, IMAGE[::-1]])
    assert list_images(tmp_path) == {}
