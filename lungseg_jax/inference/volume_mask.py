"""The mask of a volume, made of the masks of its slices."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from lungseg_jax.inference import review
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides
from lungseg_jax.inference.volume_cleanup import LUNG, clean_volume


@dataclasses.dataclass(frozen=True)
class VolumeMask:
    """The mask of a volume, and what follows from it.

    Attributes:
      mask: uint8 `[n h w]` in {0, 1}.
      sides: uint8 `[n h w]`, labels of `label_sides`.
      right, left: voxels of each lung.
      reasons: why to review each slice; constants of `review`.
    """

    mask: np.ndarray
    sides: np.ndarray
    right: int
    left: int
    reasons: Sequence[tuple[str, ...]]


def complete_mask(
    masks: np.ndarray, *, in_hu: bool, cleanup: bool = True
) -> VolumeMask:
    """Make the mask of a volume, in place.

    Args:
      masks: of its slices, uint8 `[n h w]`, as `mark_air` returns them.
      in_hu: whether the values of the volume are Hounsfield units, and air is marked.
      cleanup: see `clean_volume`.
    """
    if cleanup:
        clean_volume(masks, has_air=in_hu)
    np.minimum(masks, LUNG, out=masks)
    sides = label_sides(masks)
    right, left = (int(np.count_nonzero(sides == side)) for side in (RIGHT, LEFT))
    flags = {
        review.NEIGHBORS: review.unlike_neighbors(masks),
        review.SIDES: review.sides_differ(sides),
    }
    per_slice = zip(*flags.values(), strict=True)
    reasons = [tuple(itertools.compress(flags, flagged)) for flagged in per_slice]
    return VolumeMask(masks, sides, right, left, reasons)
