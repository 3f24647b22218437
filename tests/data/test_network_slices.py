"""Network arrays that are converted when they are read, of one or two datasets."""

import numpy as np
import pytest

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing("hu", 20, (-1000.0, 400.0))


@pytest.fixture
def parts(pair_folder, tmp_path):
    """Two datasets of 40x40 pixels, with the names of some of their slices."""
    first = load_dataset(pair_folder(["a", "b", "c"]), cache=tmp_path / "cache")
    second = load_dataset(pair_folder(["x", "y"], folder="2"), cache=tmp_path / "cache")
    return [(first, ["c", "a"], PREPROCESSING), (second, ["y"], PREPROCESSING)]


def test_items_are_those_of_the_datasets_one_after_the_other(parts):
    slices = NetworkSlices(parts, soft_masks=True)
    assert slices.names == ["c", "a", "y"] and len(slices) == 3
    for i, (dataset, name) in enumerate(
        [(parts[0][0], "c"), (parts[0][0], "a"), (parts[1][0], "y")]
    ):
        expected = dataset.read(name)
        image = PREPROCESSING.image(expected.image)
        np.testing.assert_array_equal(slices[i]["image"], image)
        mask = PREPROCESSING.mask(expected.mask, soft=True)
        np.testing.assert_array_equal(unpack_masks(slices[i]["mask"]), mask)


def test_shapes_dtypes_and_memory_are_known_before_anything_is_read(parts):
    slices = NetworkSlices(parts, soft_masks=True)
    arrays = slices.stack()
    assert {name: a.shape[1:] for name, a in arrays.items()} == slices.shapes
    assert {name: a.dtype for name, a in arrays.items()} == slices.dtypes
    assert slices.dtypes == {"image": np.int16, "mask": np.uint8}
    assert slices.slice_bytes * 3 == sum(a.nbytes for a in arrays.values())


def test_masks_with_oblong_pixels_are_not_packed(pair_folder, tmp_path):
    folder = pair_folder(["a"])
    (folder / "slices.csv").write_text("name,row_mm,column_mm\na,1,2\n")
    dataset = load_dataset(folder, cache=tmp_path / "cache")
    slices = NetworkSlices([(dataset, ["a"], PREPROCESSING)], soft_masks=True)
    assert slices[0]["mask"].dtype == slices.dtypes["mask"] == np.float32
    stored = dataset.read("a")
    image = PREPROCESSING.image(stored.image, aspect=0.5)
    mask = PREPROCESSING.mask(stored.mask, soft=True, aspect=0.5)
    np.testing.assert_array_equal(slices[0]["image"], image)
    np.testing.assert_array_equal(slices[0]["mask"], mask)


def test_batches_of_images_hold_their_own_rows(parts):
    slices = NetworkSlices(parts, soft_masks=True)
    everything = slices.stack()["image"]
    batches = np.array([[2, 0], [1, 1]])
    for batch, (images, indices) in zip(
        batches, slices.image_batches(batches), strict=True
    ):
        assert indices.shape == (1, 2)
        np.testing.assert_array_equal(images[indices[0]], everything[batch])
