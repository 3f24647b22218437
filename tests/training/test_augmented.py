"""Slices as a training changes them."""

import numpy as np
import pytest

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.data.sampling import batch_indices
from lungseg_jax.training.augmented import STRESSED, augmented_slices, stressed_slices
from lungseg_jax.training.config import default_config
from lungseg_jax.training.recipes import without_variety
from lungseg_jax.training.run_data import network_slices


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(
        None,
        cache=tmp_path_factory.mktemp("cache"),
        phantom_slices=5,
        phantom_seed=0,
    )


@pytest.fixture
def c():
    c = without_variety(default_config())
    c.augment.noise = 1.0
    c.data.image_size, c.train.batch_size = 64, 4
    return c


def test_changes_more_slices_than_there_are(c, dataset):
    images, masks = augmented_slices(c, dataset, dataset.names[:3], steps=2)
    assert images.shape == masks.shape == (8, 64, 64)
    assert (
        0 <= images.min() < images.max() <= 1 and 0 <= masks.min() <= masks.max() <= 1
    )
    assert len({image.tobytes() for image in images}) == 8
    again = augmented_slices(c, dataset, dataset.names[:3], steps=2)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(masks, again[1])


def test_stressed_slices_are_changed_validation_slices_in_hounsfield_units(c, dataset):
    """Without augmentation, they are these slices at the size of the network."""
    c.augment = {name: type(value)(0) for name, value in c.augment.items()}
    names = dataset.names[:3]
    stressed = stressed_slices(c, dataset, names)
    assert len(stressed) == STRESSED * len(names)
    drawn = batch_indices(0, n=len(names), batch_size=len(stressed), seed=c.seed)
    expected = network_slices(c, dataset, names).stack(drawn)
    images, masks = (
        np.stack([getattr(one, field) for one in stressed])
        for field in ("image", "mask")
    )
    hounsfield = expected["image"][..., 0].clip(*c.data.window_hu)
    np.testing.assert_allclose(images, hounsfield, atol=1e-3)
    np.testing.assert_array_equal(masks, unpack_masks(expected["mask"]) > 0.5)
    assert masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
