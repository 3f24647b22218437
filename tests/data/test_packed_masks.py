"""Masks in one byte a pixel are exact, or not packed."""

import dataclasses

import numpy as np
import pytest

from lungseg_jax.data.packed_masks import pack_mask, packed_dtype, unpack_masks
from lungseg_jax.data.preprocessing import Preprocessing

HU = Preprocessing("hu", 32, (-1000.0, 400.0))


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("aspect", [1.0, 0.5, 1.3])
@pytest.mark.parametrize(
    "shape", [(32, 32), (64, 64), (64, 40), (128, 128), (256, 192), (96, 96), (40, 40)]
)
def test_packing_is_exact_where_it_is_chosen(shape, aspect, soft):
    """Every bit of float32 comes back; a side of 96 or 40 is not averaged over blocks."""
    dtype = packed_dtype([(*shape, aspect)], HU, soft_masks=soft)
    averages_blocks = aspect == 1 and max(shape) not in (96, 40)
    assert (dtype == np.uint8) == (not soft or averages_blocks)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.03, 0.5, 1.0):
        mask = (rng.random(shape) < share).astype(np.uint8)
        square = HU.mask(mask, soft=soft, aspect=aspect)
        packed = pack_mask(square, dtype)
        assert packed.dtype == dtype
        unpacked = unpack_masks(packed)
        assert unpacked.dtype == np.float32
        np.testing.assert_array_equal(unpacked, square)


def test_one_slice_of_another_size_keeps_all_masks_in_float32():
    shapes = [(64, 64, 1.0)] * 9
    assert packed_dtype(shapes, HU, soft_masks=True) == np.uint8
    mixed = [*shapes, (64, 63, 1.0)]
    assert packed_dtype(mixed, HU, soft_masks=True) == np.float32


def test_blurred_masks_are_not_packed():
    seed = dataclasses.replace(HU, kind="seed")
    assert packed_dtype([(32, 32, 1.0)], seed, soft_masks=True) == np.float32
