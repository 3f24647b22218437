"""Fixtures of the tests of predictions."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def segmenter(trained):
    from lungseg_jax.inference.segmenter import LungSegmenter

    return LungSegmenter(trained)


@pytest.fixture
def images(slices):
    return np.stack([image_slice.image for image_slice in slices(5)])
