"""Clean-up of the mask of a whole volume: what is not connected to a lung is dropped.

Slice by slice, a trachea or a loop of bowel is a component like any other. In three
dimensions, it is much smaller than a lung.
"""

import cc3d
import fill_voids
import numpy as np

ISLAND = 0.05  # share of the largest component


def clean_volume(mask: np.ndarray) -> None:
    """Drop small components of a mask and fill its cavities, in place.

    Components touch at the faces of voxels. A cavity is background that is not connected to
    the border of the volume over the faces of its voxels.

    Args:
      mask: uint8 `[n h w]` in {0, 1}.
    """
    box = bounding_box(mask)
    if box is None:
        return
    inside = np.ascontiguousarray(mask[box])  # takes less memory than the whole volume
    labels = cc3d.connected_components(inside, connectivity=6, binary_image=True)
    sizes = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"]
    sizes[0] = 0  # the background
    is_kept = (sizes >= ISLAND * sizes.max()).astype(np.uint8)
    for k in range(len(inside)):  # all at once would take eight bytes for a voxel
        inside[k] = is_kept[labels[k]]
    mask[box] = fill_voids.fill(inside, in_place=True)


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
