"""Right and left lung: every slice is cut in two where the cut crosses the least lung.

The cut is a seam, a path from the front to the back that moves by at most one column from
row to row. Among seams that cross equally little lung, it is the one nearest to the middle,
so that it leaves each lung whole and passes between lungs that touch.

Source: the seam is that of Avidan & Shamir, Seam carving for content-aware image resizing,
ACM Transactions on Graphics 26, 2007, with the lung as energy.
"""

import cc3d
import numpy as np

from lungseg_jax.inference.volume_cleanup import bounding_box

RIGHT, LEFT = 1, 2  # labels of the patient's right and left lung
OFF_CENTER = (
    0.2  # the cost of a row in which the seam is at the border, in pixels of lung
)
ONE_SIDED = 0.9  # a component with this share on one side is wholly there


def label_sides(mask: np.ndarray) -> np.ndarray:
    """Label the right lung RIGHT and the left lung LEFT.

    Args:
      mask: uint8 `[n h w]` in {0, 1}, axial slices with the patient's right at the left, as
        `Volume` has them.

    Returns:
      uint8 `[n h w]`, 0 outside of the mask. A component of which little is beyond the seam
      is labelled as one.
    """
    labels = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is None:
        return labels
    inside = mask[box]
    middle = _middle(inside, mask.shape[2] / 2 - box[2].start)
    columns = np.arange(inside.shape[2])
    for k in range(len(inside)):
        seam = _seam(inside[k], middle)
        labels[box][k] = np.where(columns < seam[:, None], RIGHT, LEFT) * inside[k]
    labels[box] = _unite_components(labels[box])
    return labels


def _middle(mask: np.ndarray, image_center: float) -> float:
    """Return the middle between the outer borders of the lungs, a column.

    Or that of the image, if it crosses less lung: then there is one lung only.
    """
    center = (mask.shape[2] - 1) / 2
    if not 0 <= image_center < mask.shape[2]:
        return image_center
    crossed = mask.sum(axis=(0, 1), dtype=np.int64)
    at_image_center, at_center = crossed[[int(image_center), int(center)]]
    return image_center if at_image_center < at_center else center


def _seam(mask: np.ndarray, middle: float) -> np.ndarray:
    """Return the columns `[h]` of the best seam in a slice `[h w]`."""
    h, w = mask.shape
    away = np.abs(np.arange(w) - middle) / w
    cost = mask.astype(np.float32) + OFF_CENTER * 2 * away.astype(np.float32)
    step = np.empty((h, w), np.int8)  # to the column in the row above
    total = cost[0]
    for row in range(1, h):
        padded = np.pad(total, 1, constant_values=np.inf)
        above = np.stack([padded[1:-1], padded[:-2], padded[2:]])
        choice = above.argmin(axis=0)
        step[row] = np.array([0, -1, 1], np.int8)[choice]
        total = np.take_along_axis(above, choice[None], axis=0)[0] + cost[row]
    seam = np.empty(h, np.int64)
    seam[-1] = total.argmin()
    for row in range(h - 1, 0, -1):
        seam[row - 1] = seam[row] + step[row, seam[row]]
    return seam


def _unite_components(labels: np.ndarray) -> np.ndarray:
    """Give a component that is nearly all on one side the label of that side."""
    components, count = cc3d.connected_components(
        labels > 0, connectivity=6, binary_image=True, return_N=True
    )
    right, left = (
        np.bincount(components[labels == side], minlength=count + 1)
        for side in (RIGHT, LEFT)
    )
    share = right / np.maximum(right + left, 1)
    united = np.zeros(count + 1, np.uint8)
    united[share >= ONE_SIDED] = RIGHT
    united[share <= 1 - ONE_SIDED] = LEFT
    united[0] = 0
    for k in range(len(labels)):
        one = united[components[k]]
        labels[k] = np.where(one, one, labels[k])
    return labels
