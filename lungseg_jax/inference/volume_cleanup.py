"""Clean-up of the mask of a whole volume: what is not connected to a lung is dropped.

Slice by slice, a trachea or a loop of bowel is a component like any other. In three
dimensions, it is much smaller than a lung. And a scan without any air in its mask shows no
lung: a network may take a liver for one that is filled with tissue.
"""

import cc3d
import fill_voids
import numpy as np

from lungseg_jax.metrics.bounding_box import bounding_box

COMPONENT = 0.05  # share of the largest component
BESIDE = 0.5  # share of a component's slices that also show the largest one
LUNG, AIR = 1, 2  # values of a mask: lung, and lung with air in it
AERATED_HU = -500  # air is below
AERATED = 0.05  # share of air in a component that is surely lung
CONSOLIDATED = 0.2, 3.0  # the same of one that holds less air: least and most


def mark_air(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mask of slices, uint8 `[... h w]` in {0, LUNG, AIR}.

    Args:
      image: `[... h w]`, in Hounsfield units.
      mask: `[... h w]`, bool.
    """
    marked = (mask & (image < AERATED_HU)).view(np.uint8)
    marked += mask  # AIR is 2 LUNG
    return marked


def clean_volume(mask: np.ndarray, *, has_air: bool = False) -> None:
    """Drop small components of a mask and fill its cavities, in place.

    Kept are components of at least COMPONENT of the largest. BESIDE of the slices that they
    extend over must also show the largest one: bowel is below it. Components touch at the
    faces of voxels. A cavity is background that is not connected to the border of the
    volume over the faces of its voxels.

    Where air is marked, components of which less than AERATED is air are suspicious: if all
    are, the scan shows no lung. Otherwise, sizes are compared with the largest of the
    others, and a suspicious component is kept if it is within CONSOLIDATED of it, as a lung
    filled with tissue is. Below the tips of the lungs, a stomach is larger.

    Args:
      mask: uint8 `[n h w]`, 0 outside of the lung; afterwards in {0, 1}.
      has_air: whether air is marked in the mask, by AIR.
    """
    box = bounding_box(mask)
    if box is None:
        return
    inside = np.ascontiguousarray(mask[box])  # takes less memory than the whole volume
    labels = cc3d.connected_components(inside, connectivity=6, binary_image=True)
    air = _air(inside, labels) if has_air else None
    is_kept = _are_kept(labels, air).astype(np.uint8)
    for k in range(len(inside)):  # all at once would take eight bytes for a voxel
        inside[k] = is_kept[labels[k]]
    mask[box] = fill_voids.fill(inside, in_place=True)


def _air(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the voxels of air in each component, by its label."""
    count = int(labels.max()) + 1
    pairs = zip(mask, labels, strict=True)
    return sum(np.bincount(part[m == AIR], minlength=count) for m, part in pairs)


def _are_kept(labels: np.ndarray, air: np.ndarray | None) -> np.ndarray:
    """Return whether each component, by its label, is kept; 0 is the background."""
    found = cc3d.statistics(labels, no_slice_conversion=True)
    sizes = found["voxel_counts"].astype(int)
    sizes[0] = 0
    is_aerated = sizes > 0 if air is None else air >= AERATED * np.maximum(sizes, 1)
    if not is_aerated.any():
        return np.zeros(len(sizes), bool)
    first, last = found["bounding_boxes"][:, :2].astype(int).T  # slices
    largest = np.where(is_aerated, sizes, 0).argmax()
    low, high = CONSOLIDATED
    least = np.where(is_aerated, COMPONENT, low) * sizes[largest]
    most = np.where(is_aerated, np.inf, high) * sizes[largest]
    common = np.minimum(last, last[largest]) - np.maximum(first, first[largest]) + 1
    is_beside = common >= BESIDE * (last - first + 1)
    return is_beside & (least <= sizes) & (sizes <= most)
