"""Phantoms are reproducible, plausible, and written like the Kaggle set."""

import re
import struct

import cv2
import numpy as np
import pytest

from lungseg_jax.data.phantom import dataset
from lungseg_jax.runtime.errors import UserError

SLICES = 40
SIZE = 128


@pytest.fixture(scope="module")
def pairs():
    """40 slices and masks, each [128 128]."""
    return [dataset.make_phantom(seed=3, index=i, size=SIZE) for i in range(SLICES)]


@pytest.fixture(scope="module")
def many():
    """120 slices and masks, each [64 64]."""
    return [dataset.make_phantom(seed=3, index=i, size=64) for i in range(120)]


def test_is_a_function_of_seed_and_index():
    image, mask = dataset.make_phantom(seed=1, index=2, size=SIZE)
    same_image, same_mask = dataset.make_phantom(seed=1, index=2, size=SIZE)
    np.testing.assert_array_equal(image, same_image)
    np.testing.assert_array_equal(mask, same_mask)


@pytest.mark.parametrize("seed,index", [(1, 3), (2, 2), (2, 1)])
def test_another_seed_or_index_is_another_patient(seed, index):
    image, _ = dataset.make_phantom(seed=1, index=2, size=SIZE)
    another, _ = dataset.make_phantom(seed=seed, index=index, size=SIZE)
    assert (np.abs(image.astype(int) - another) > 300).mean() > 0.05


@pytest.mark.parametrize("size", [64, 100, 128, 512])
def test_has_the_requested_shape_and_dtypes(size):
    image, mask = dataset.make_phantom(seed=0, index=0, size=size)
    assert image.shape == mask.shape == (size, size)
    assert image.dtype == np.int16 and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize(
    "wrong",
    [{"size": 63}, {"size": 64.0}, {"seed": -1}, {"seed": 1.5}, {"index": None}],
    ids=str,
)
def test_numbers_that_nothing_can_be_drawn_of_are_plain_errors(wrong):
    with pytest.raises(UserError, match=r"(?s)=.*rule:  a whole number from (0|64)\."):
        dataset.make_phantom(**{"seed": 0, "index": 0, "size": 64} | wrong)


@pytest.mark.parametrize("index", range(6))
def test_size_changes_only_the_resolution(index):
    large_image, large = dataset.make_phantom(seed=5, index=index, size=512)
    image, small = dataset.make_phantom(seed=5, index=index, size=128)
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) > 127
    # They differ in at most a part of the edge.
    edge = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    differences = shrunk != (small > 0)
    assert differences.sum() <= 0.35 * edge.sum()
    shrunk_image = cv2.resize(large_image, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk_image.ravel(), image.ravel())[0, 1] > 0.9


def test_slices_come_from_the_whole_body(many):
    masks = np.stack([mask for _, mask in many]) > 0
    share = masks.mean(axis=(1, 2))
    assert 0.15 < (share == 0).mean() < 0.3  # neck, abdomen, pelvis
    assert 0.1 < ((share > 0) & (share < 0.05)).mean()  # apices, bases, large fields
    assert 0.15 < (share > 0.2).mean()
    assert share.max() < 0.9


def test_some_fields_of_view_cut_the_lung(many):
    masks = np.stack([mask for _, mask in many])
    borders = masks[:, [0, -1]].any((1, 2)) | masks[:, :, [0, -1]].any((1, 2))
    assert 0.08 < borders.mean() < 0.35


def test_padding_is_not_lung(many):
    for image, mask in many:
        assert not (mask[image < -1500] > 0).any()


def test_lungs_have_at_most_six_parts(pairs):
    parts = [cv2.connectedComponents(mask, connectivity=4)[0] - 1 for _, mask in pairs]
    assert set(parts) <= set(range(7)) and {1, 2} <= set(parts)


def test_density_of_the_lung_varies_as_in_a_hospital(many):
    density = [np.median(image[mask > 0]) for image, mask in many if mask.any()]
    low, middle, high = np.percentile(density, [5, 50, 95])
    assert -980 < low < -850 and -800 < middle < -640 and -500 < high < 60


def test_hounsfield_units_are_plausible(pairs):
    assert all(image.min() >= -3024 and image.max() <= 3071 for image, _ in pairs)
    assert min(image.min() for image, _ in pairs) < -2000  # padding
    for image, _ in pairs:  # there is a body in every slice, with bone
        assert (np.abs(image) < 200).mean() > 0.02 and image.max() > 150


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, calls = tmp_path_factory.mktemp("phantom"), []
    dataset.write_phantoms(
        folder, slices=3, seed=7, size=SIZE, progress=lambda: calls.append(None)
    )
    return folder, calls


def test_writes_the_layout_of_the_kaggle_set(written):
    folder, calls = written
    names = sorted(path.name for path in (folder / "2d_images").iterdir())
    assert names == [dataset.slice_name(7, index) for index in range(3)]
    assert names == sorted(path.name for path in (folder / "2d_masks").iterdir())
    assert all(re.fullmatch(r"ID_000[012]_Z_0\d{3}\.tif", name) for name in names)
    assert len(calls) == 3


def test_written_files_read_back_exactly(written):
    folder, _ = written
    for index in range(3):
        expected = dataset.make_phantom(seed=7, index=index, size=SIZE)
        for kind, array in zip(("2d_images", "2d_masks"), expected):
            path = folder / kind / dataset.slice_name(7, index)
            stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert stored.dtype == array.dtype
            np.testing.assert_array_equal(stored, array)


@pytest.mark.parametrize("kind,bits,signed", [("2d_images", 16, 2), ("2d_masks", 8, 1)])
def test_writes_the_file_format_of_the_kaggle_set(written, kind, bits, signed):
    content = (written[0] / kind / dataset.slice_name(7, 0)).read_bytes()
    order, magic, offset = struct.unpack_from("<2sHI", content)
    assert (order, magic) == (b"II", 42)  # little-endian
    (count,) = struct.unpack_from("<H", content, offset)
    tags = {}
    for entry in range(count):
        at = offset + 2 + 12 * entry
        tag, kind_of_value, values = struct.unpack_from("<HHI", content, at)
        form = {3: "<H", 4: "<I"}[kind_of_value]
        tags[tag] = values, *struct.unpack_from(form, content, at + 8)
    assert tags[258] == (1, bits)
    assert tags[259] == (1, 1)  # not compressed
    assert tags[339] == (1, signed)  # 1 unsigned, 2 signed
    assert tags[278] == (1, SIZE)  # all rows in one strip
    assert tags[279] == (1, SIZE * SIZE * bits // 8)


def test_writing_twice_gives_the_same_bytes(written, tmp_path):
    dataset.write_phantoms(tmp_path, slices=3, seed=7, size=SIZE)
    for path in written[0].rglob("*.tif"):
        twin = tmp_path / path.relative_to(written[0])
        assert twin.read_bytes() == path.read_bytes()


def test_refuses_zero_slices(tmp_path):
    with pytest.raises(ValueError, match="slices=0 must be at least 1"):
        dataset.write_phantoms(tmp_path, slices=0, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_passes_write_errors_to_the_caller(tmp_path, monkeypatch):
    def no_space(path, array):
        raise OSError("No space left on device")

    monkeypatch.setattr(dataset, "write_image", no_space)
    with pytest.raises(OSError, match="No space left"):
        dataset.write_phantoms(tmp_path, slices=5, seed=0, size=64)
