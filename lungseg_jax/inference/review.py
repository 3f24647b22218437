"""Reasons to review slices: signs in a volume's own mask that it is wrong.

The probabilities of a slice say where a network hesitates. They do not say that it is
surely wrong, as it can be about a lung filled with tissue. The anatomy often does.
"""

import numpy as np

from lungseg_jax.inference.sides import LEFT, RIGHT

UNCERTAIN = "uncertain"  # the expected IoU is below the limit of the run
MEMBERS = "members disagree"  # likewise, and they do
NEIGHBORS = "unlike its neighbours"
SIDES = "left and right differ"

DISAGREEING = 0.1  # `Segmentation.disagreement`
UNLIKE = 0.1  # share of a slice's lung that appears or disappears
SMALLEST = 0.1  # smaller areas are raised to this share of the largest one
ASYMMETRIC = 0.3  # area of the smaller lung, as a share of the larger one
ENDS = 0.2  # share of the longer lung at its top and at its base, where lungs differ


def reason_of(disagreement: float) -> str:
    """Return why the expected IoU of a slice is low."""
    return MEMBERS if disagreement >= DISAGREEING else UNCERTAIN


def unlike_neighbors(masks: np.ndarray) -> np.ndarray:
    """Find slices whose lung is not what the slices above and below lead to expect.

    Unexpected are pixels of lung that neither neighbor has, and pixels that both have and
    the slice has not. So a lung may grow or shrink from slice to slice at any rate.

    Args:
      masks: uint8 `[n h w]`, 0 outside of the lung.

    Returns:
      bool `[n]`: unexpected are more than UNLIKE of the pixels of lung. The first and the
      last slice are never unlike their neighbors.
    """
    areas = np.array([np.count_nonzero(mask) for mask in masks])
    smallest = max(SMALLEST * areas.max(initial=0), 1)
    is_unlike = np.zeros(len(masks), bool)
    for k in range(1, len(masks) - 1):
        below, here, above = (masks[i] != 0 for i in (k - 1, k, k + 1))
        unexpected = (here & ~(below | above)) | (~here & below & above)
        usual = max(areas[k], (areas[k - 1] + areas[k + 1]) / 2, smallest)
        is_unlike[k] = np.count_nonzero(unexpected) > UNLIKE * usual
    return is_unlike


def sides_differ(sides: np.ndarray) -> np.ndarray:
    """Find slices in which one lung is much smaller than the other.

    Args:
      sides: uint8 `[n h w]`, labels of `label_sides`.

    Returns:
      bool `[n]`. The ENDS of the longer lung are left out: the apices and, because of the
      liver, the bases of healthy lungs differ.
    """
    areas = np.array(
        [[np.count_nonzero(s == side) for side in (RIGHT, LEFT)] for s in sides]
    ).reshape(-1, 2)
    differ = areas.min(axis=1) < ASYMMETRIC * areas.max(axis=1)
    within = np.zeros(len(sides), bool)
    shown = max((np.flatnonzero(side) for side in areas.T), key=len)
    if len(shown):
        first, last = shown[[0, -1]]
        margin = ENDS * (last - first)
        k = np.arange(len(sides))
        within = (k >= first + margin) & (k <= last - margin)
    return differ & within
