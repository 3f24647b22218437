"""How far the boundaries of two masks lie apart: NSD, HD95, ASSD of one slice.

Definition of the boundary: Nikolov et al., arXiv:1809.04430, and the library
surface-distance of its authors (2D). A contour passes between pixels; its elements lie at
the corners of four pixels and are weighted by their length, so that a slanted boundary
counts by its length and not by its number of pixels. Distances are between the corners
that the contours pass.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

SURFACE_SCORES = ("nsd", "hd95", "assd")


def surface_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float,
) -> dict[str, float]:
    """The distances of two masks, in pixels, or in the unit of the spacing.

    Both empty: NaN, there is nothing to score. One empty: NSD is 0, and the distances are
    the image's diagonal, the largest there is.

    Args:
      predicted, truth: `[h w]`, boolean.
      spacing: between rows and between columns.
      tolerance: of NSD.

    Returns:
      "nsd", normalised surface distance: the share of both boundaries within the
      tolerance of the other (the "surface Dice" of Nikolov et al.); "hd95", the larger
      of the two 95th percentiles of the distance; "assd", the mean distance over both
      boundaries together (Heimann et al., IEEE TMI 28, 2009).
    """
    spacing = (1.0, 1.0) if spacing is None else tuple(map(float, spacing))
    if not predicted.any() or not truth.any():
        if predicted.any() == truth.any():
            return dict.fromkeys(SURFACE_SCORES, float("nan"))
        diagonal = float(np.hypot(*np.multiply(truth.shape, spacing)))
        return {"nsd": 0.0, "hd95": diagonal, "assd": diagonal}
    there, back = _distances(predicted, truth, spacing)
    length = there[1].sum() + back[1].sum()
    within = sum(lengths[d <= tolerance].sum() for d, lengths in (there, back))
    return {
        "nsd": float(within / length),
        "hd95": max(_percentile(*there, 95), _percentile(*back, 95)),
        "assd": float(
            sum((d * lengths).sum() for d, lengths in (there, back)) / length
        ),
    }


def _distances(one, other, spacing):
    """Of each element of a contour to the other contour, and the elements' lengths."""
    rows, columns = np.nonzero(one | other)
    box = (
        slice(rows.min(), rows.max() + 1),
        slice(columns.min(), columns.max() + 1),
    )
    lengths = [_lengths(np.pad(mask[box], 1), spacing) for mask in (one, other)]
    borders = [length > 0 for length in lengths]
    to_border = [distance_transform_edt(~b, sampling=spacing) for b in borders]
    return (
        (to_border[1][borders[0]], lengths[0][borders[0]]),
        (to_border[0][borders[1]], lengths[1][borders[1]]),
    )


def _lengths(mask, spacing):
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
