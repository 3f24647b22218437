"""Right and left lung: every slice is cut in two where the cut crosses the least lung.

The cut is a seam, a path from the front to the back that moves by at most one column from
row to row. Among seams that cross equally little lung, it is the one nearest to the middle,
so that it leaves each lung whole and passes between lungs that touch.

Source: the seam is that of Avidan & Shamir, Seam carving for content-aware image resizing,
ACM Transactions on Graphics 26, 2007, with the lung as energy.
"""

import cc3d
import numpy as np

from lungseg_jax.metrics.bounding_box import bounding_box

RIGHT, LEFT = 1, 2  # labels of the patient's right and left lung
# The cost of a row in which the seam is at the border, in pixels of lung.
OFF_CENTER = 0.2
CHUNK = 32  # slices that are cut at the same time
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
    inside, sides = mask[box], labels[box]
    middle = _middle(inside, mask.shape[2] / 2 - box[2].start)
    columns = np.arange(inside.shape[2])
    beyond = middle >= inside.shape[2]  # all are right of the seam, the last one too
    for k in range(0, len(inside), CHUNK):
        part = inside[k : k + CHUNK]
        is_right = columns < _seams(part, middle)[..., None] + beyond
        sides[k : k + CHUNK] = np.where(is_right, *np.uint8([RIGHT, LEFT])) * part
    _unite_components(sides)
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


def _seams(masks: np.ndarray, middle: float) -> np.ndarray:
    """Return the columns `[k h]` of the best seam in each slice of `[k h w]`."""
    k, h, w = masks.shape
    away = np.abs(np.arange(w) - middle) / w
    off_center = OFF_CENTER * 2 * away.astype(np.float32)
    # The least cost of a path to each pixel. No path comes from beyond the borders.
    total = np.full((h, k, w + 2), np.inf, np.float32)
    total[0, :, 1:-1] = masks[:, 0] + off_center
    for row in range(1, h):
        above = total[row - 1]
        least = np.minimum(above[:, 1:-1], above[:, :-2])
        np.minimum(least, above[:, 2:], out=least)
        np.add(least, masks[:, row] + off_center, out=total[row, :, 1:-1])
    seams = np.empty((k, h), np.int64)
    seams[:, -1] = total[-1, :, 1:-1].argmin(axis=1)
    # Straight on first: argmin takes the first of equal costs.
    steps, slices = np.array([0, -1, 1]), np.arange(k)[:, None]
    for row in range(h - 1, 0, -1):
        columns = seams[:, row, None] + steps
        choice = total[row - 1, slices, columns + 1].argmin(axis=1)
        seams[:, row - 1] = columns[slices[:, 0], choice]
    return seams


def _unite_components(labels: np.ndarray) -> None:
    """Relabel components that are nearly all on one side as that side, in place."""
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
        np.copyto(labels[k], one, where=one > 0)
