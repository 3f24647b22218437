"""Masks in one byte a pixel, where that loses nothing, as they are kept on devices.

A mask that was averaged over blocks of 2, 4 or 8 pixels a side holds multiples of 1/64. In
steps of 1/128 it fits in uint8, and because 128 is a power of two, both ways are exact:
trainings on packed masks have the same bits as on float32 ones.
"""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from lungseg_jax.data.preprocessing import Preprocessing

STEPS = 128  # from 0 to 1
EXACT_RATIOS = (1, 2, 4, 8)  # of a slice's longer side to the network's

Array = TypeVar("Array")  # of NumPy or of JAX


def packed_dtype(
    shapes: Iterable[tuple[int, int, float]],
    preprocessing: Preprocessing,
    *,
    soft_masks: bool,
) -> np.dtype:
    """Return uint8 if the masks of such slices can be packed exactly, or float32.

    Args:
      shapes: height, width and pixel aspect of the slices.
      preprocessing: of the slices.
      soft_masks: whether masks hold shares of lung; see `Preprocessing.mask`.
    """
    is_exact = not soft_masks or (
        preprocessing.kind != "seed"  # which blurs masks
        and all(
            _averages_blocks(*shape, preprocessing.image_size) for shape in set(shapes)
        )
    )
    return np.dtype(np.uint8 if is_exact else np.float32)


def pack_mask(mask: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert a float32 mask in [0, 1] to a dtype of `packed_dtype`."""
    return (mask * STEPS).astype(dtype) if dtype == np.uint8 else mask


def unpack_masks(masks: Array) -> Array:
    """Convert masks of `pack_mask`, of any shape, back to float32 in [0, 1]."""
    if masks.dtype != np.uint8:
        return masks
    return masks.astype(np.float32) * np.float32(1 / STEPS)


def _averages_blocks(height: int, width: int, aspect: float, image_size: int) -> bool:
    """Whether a slice is scaled by a whole ratio that is a power of two."""
    ratio, rest = divmod(max(height, width), image_size)
    is_whole = rest == 0 and height % ratio == width % ratio == 0
    return aspect == 1 and is_whole and ratio in EXACT_RATIOS
