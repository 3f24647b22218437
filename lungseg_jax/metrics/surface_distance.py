"""Surface distances between the boundaries of two masks of a slice: NSD, HD95, ASSD.

The boundary is defined as in Nikolov et al., arXiv:1809.04430, and the authors' library
surface-distance (2D). A contour passes between pixels; its elements are centred on the
corners of four pixels and weighted by their length, so a slanted boundary counts by its
length rather than its number of pixels. Distances are between the corners that the
contours pass through.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt


def surface_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float,
) -> dict[str, float]:
    """Return the surface distances of two masks, in pixels or the unit of the spacing.

    If both masks are empty, the scores are NaN. If one is empty, NSD is 0 and the
    distances are the diagonal of the image, the largest possible distance.

    Args:
      predicted, truth: `[h w]`, boolean.
      spacing: between rows and between columns; 1 by default.
      tolerance: of NSD.

    Returns:
      "nsd", normalised surface distance: the share of both boundaries within the
      tolerance of the other (the "surface Dice" of Nikolov et al.); "hd95", the larger
      of the two 95th percentiles of the distance; "assd", the average symmetric surface
      distance, which is the mean over both boundaries (Heimann et al., IEEE TMI 28, 2009).
    """
    spacing = (1.0, 1.0) if spacing is None else tuple(map(float, spacing))
    if not predicted.any() or not truth.any():
        if predicted.any() == truth.any():
            return dict.fromkeys(("nsd", "hd95", "assd"), float("nan"))
        diagonal = float(np.hypot(*np.multiply(truth.shape, spacing)))
        return {"nsd": 0.0, "hd95": diagonal, "assd": diagonal}
    contours = _contour_distances(predicted, truth, spacing)
    total = sum(lengths.sum() for _, lengths in contours)
    within = sum(lengths[d <= tolerance].sum() for d, lengths in contours)
    return {
        "nsd": float(within / total),
        "hd95": max(_percentile(*contour, 95) for contour in contours),
        "assd": float(sum((d * lengths).sum() for d, lengths in contours) / total),
    }


def _contour_distances(predicted, truth, spacing):
    """For each contour, its elements' distances to the other contour, and their lengths."""
    rows, columns = np.nonzero(predicted | truth)
    box = (
        slice(rows.min(), rows.max() + 1),
        slice(columns.min(), columns.max() + 1),
    )
    lengths = [
        _contour_lengths(np.pad(mask[box], 1), spacing) for mask in (predicted, truth)
    ]
    contours = [length > 0 for length in lengths]
    distances = [distance_transform_edt(~c, sampling=spacing) for c in contours]
    return (
        (distances[1][contours[0]], lengths[0][contours[0]]),
        (distances[0][contours[1]], lengths[1][contours[1]]),
    )


def _contour_lengths(mask, spacing):
    """The length of the contour at each corner of pixels, `[h-1 w-1]`; mostly 0."""
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    height, width = spacing
    diagonal = np.hypot(height, width)
    count = a.astype(np.int8) + b + c + d
    lengths = np.zeros(count.shape)
    lengths[(count == 1) | (count == 3)] = diagonal / 2  # cuts one corner off
    lengths[(count == 2) & (a == b)] = width  # runs along a row
    lengths[(count == 2) & (a == c)] = height
    lengths[(count == 2) & (a == d)] = diagonal  # cuts two corners off
    return lengths


def _percentile(distances, lengths, percent) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(lengths[order]) / lengths.sum()
    index = np.searchsorted(reached, percent / 100)
    return float(distances[order][min(index, len(order) - 1)])
