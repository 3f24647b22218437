"""The bounding box of a mask."""

import numpy as np


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the slice of each axis that holds the mask; None if it is empty.

    Args:
      mask: of any number of dimensions and any type; what is not 0 is in the mask.
    """
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
