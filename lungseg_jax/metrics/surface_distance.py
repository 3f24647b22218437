"""Surface distances between the boundaries of two masks: NSD, HD95, ASSD, in 2D and 3D.

The boundary is defined as in Nikolov et al., arXiv:1809.04430, and the authors' library
surface-distance. It passes between pixels; its elements are centered on the corners of four
pixels, or of eight voxels, and weighted by their length or area, so a slanted boundary
counts by its size rather than its number of pixels. Distances are between the corners that
the boundaries pass through.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from lungseg_jax.metrics.bounding_box import bounding_box
from lungseg_jax.metrics.surface_elements import element_patterns, element_sizes

ROUNDING = 1e-6  # NIfTI has spacings in float32: 0.8 mm would be farther than 0.8 mm


def surface_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float,
) -> dict[str, float]:
    """Return the surface distances of two masks, in pixels or the unit of the spacing.

    If both masks are empty, the scores are NaN. If one is empty, NSD is 0 and the
    distances are the diagonal of the image or volume, the largest possible distance.

    Memory is about 17 bytes for each voxel of the box around both masks.

    Args:
      predicted, truth: `[h w]` or `[d h w]`, boolean.
      spacing: of the pixels or voxels, for each axis; 1 by default.
      tolerance: of NSD.

    Returns:
      "nsd", normalized surface distance: the share of both boundaries within the
      tolerance of the other (the "surface Dice" of Nikolov et al.); "hd95", the larger
      of the two 95th percentiles of the distance; "assd", the average symmetric surface
      distance, which is the mean over both boundaries (Heimann et al., IEEE TMI 28, 2009).
    """
    spacing = (1.0,) * truth.ndim if spacing is None else tuple(map(float, spacing))
    if not predicted.any() or not truth.any():
        if predicted.any() == truth.any():
            return dict.fromkeys(("nsd", "hd95", "assd"), float("nan"))
        diagonal = float(functools.reduce(np.hypot, np.multiply(truth.shape, spacing)))
        return {"nsd": 0.0, "hd95": diagonal, "assd": diagonal}
    boundaries = _boundary_distances(predicted, truth, spacing)
    total = sum(sizes.sum() for _, sizes in boundaries)
    limit = tolerance * (1 + ROUNDING)
    within = sum(sizes[d <= limit].sum() for d, sizes in boundaries)
    return {
        "nsd": float(within / total),
        "hd95": max(_percentile(*boundary, 95) for boundary in boundaries),
        "assd": float(sum((d * sizes).sum() for d, sizes in boundaries) / total),
    }


def _boundary_distances(predicted, truth, spacing):
    """For each boundary, its elements' distances to the other one, and their sizes."""
    box = bounding_box(predicted | truth)
    patterns = [element_patterns(np.pad(m[box], 1)) for m in (predicted, truth)]
    size_of = element_sizes(spacing)
    # At the first and the last pattern, all neighbors are on one side.
    elements = [np.nonzero((p > 0) & (p < len(size_of) - 1)) for p in patterns]
    return [
        (
            _distances(elements[i], elements[1 - i], patterns[i].shape, spacing),
            size_of[patterns[i][elements[i]]],
        )
        for i in (0, 1)
    ]


def _distances(points, targets, shape, spacing) -> np.ndarray:
    """The distance of each point to the nearest target; both as indices of a grid."""
    is_free = np.ones(shape, bool)
    is_free[targets] = False
    # Distances are taken at the points only: those of a whole chest would need gigabytes.
    nearest = distance_transform_edt(
        is_free, sampling=spacing, return_distances=False, return_indices=True
    )
    steps = nearest[:, *points] - np.array(points)
    return np.sqrt(((steps.T * spacing) ** 2).sum(axis=1))


def _percentile(distances, sizes, percent) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(sizes[order]) / sizes.sum()
    index = np.searchsorted(reached, percent / 100)
    return float(distances[order][min(index, len(order) - 1)])
