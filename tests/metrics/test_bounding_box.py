"""The bounding box of a mask."""

import numpy as np
import pytest

from lungseg_jax.metrics.bounding_box import bounding_box


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("shape", [(9,), (9, 8), (9, 8, 7)])
def test_holds_all_of_the_mask_and_no_more(shape, dtype):
    mask = np.zeros(shape, dtype)
    assert bounding_box(mask) is None
    first, last = (2,) * len(shape), (5,) * len(shape)
    mask[first] = mask[last] = 1
    assert bounding_box(mask) == (slice(2, 6),) * len(shape)
