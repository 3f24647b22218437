"""Clean-up of the mask of a whole volume: what is not connected to a lung is dropped.

Slice by slice, a trachea or a loop of bowel is a component like any other. In three
dimensions, it is much smaller than a lung.
"""

import cc3d
import fill_voids
import numpy as np

ISLAND = 0.05  # share of the largest component
BESIDE = 0.5  # share of a component's slices that also show the largest one


def clean_volume(mask: np.ndarray) -> None:
    """Drop small components of a mask and fill its cavities, in place.

    Kept are components of at least ISLAND of the largest. BESIDE of the slices that they
    extend over must also show the largest one: bowel is below it. Components touch at the
    faces of voxels. A cavity is background that is not connected to the border of the
    volume over the faces of its voxels.

    Args:
      mask: uint8 `[n h w]` in {0, 1}.
    """
    box = bounding_box(mask)
    if box is None:
        return
    inside = np.ascontiguousarray(mask[box])  # takes less memory than the whole volume
    labels = cc3d.connected_components(inside, connectivity=6, binary_image=True)
    is_kept = _are_kept(labels).astype(np.uint8)
    for k in range(len(inside)):  # all at once would take eight bytes for a voxel
        inside[k] = is_kept[labels[k]]
    mask[box] = fill_voids.fill(inside, in_place=True)


def _are_kept(labels: np.ndarray) -> np.ndarray:
    """Return whether each component, by its label, is kept; 0 is the background."""
    found = cc3d.statistics(labels, no_slice_conversion=True)
    sizes = found["voxel_counts"].astype(int)
    sizes[0] = 0
    first, last = found["bounding_boxes"][:, :2].astype(int).T  # slices
    largest = sizes.argmax()
    common = np.minimum(last, last[largest]) - np.maximum(first, first[largest]) + 1
    is_beside = common >= BESIDE * (last - first + 1)
    return is_beside & (sizes >= ISLAND * sizes.max())


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the slices of each axis that hold a voxel of the mask."""
    rows_and_columns = mask.max(axis=0)
    used = (
        mask.any(axis=(1, 2)),
        rows_and_columns.any(axis=1),
        rows_and_columns.any(axis=0),
    )
    if not used[0].any():
        return None
    ends = [np.flatnonzero(axis)[[0, -1]] for axis in used]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
