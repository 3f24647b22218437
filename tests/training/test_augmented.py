"""Slices as a training changes them."""

import numpy as np
import pytest

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.training.augmented import augmented_slices
from lungseg_jax.training.config import default_config


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
    c = default_config()
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
