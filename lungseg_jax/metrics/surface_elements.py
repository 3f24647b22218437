"""Sizes of the elements of which the boundary of a mask consists, in 2D and in 3D.

An element is centered on the point where 4 pixels or 8 voxels meet, and its shape follows
from which of them are inside. In 2D it is a line that cuts the corners off, in 3D a
surface of marching cubes (Lorensen & Cline, SIGGRAPH 1987). The sizes are those of the
library surface-distance of Nikolov et al., arXiv:1809.04430; a test compares all of them.
"""

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Point = tuple[int, ...]

CORNERS = list(itertools.product((0, 1), repeat=3))  # voxels around a point
# The sides of the cube between these voxels, each as four corners in a circle.
CIRCLE = ((0, 0), (0, 1), (1, 1), (1, 0))
SIDES = [
    [(*corner[:axis], side, *corner[axis:]) for corner in CIRCLE]
    for axis in range(3)
    for side in (0, 1)
]


def element_patterns(mask: np.ndarray) -> np.ndarray:
    """Return which neighbors of each inner point are inside, as the bits of a number.

    Args:
      mask: `[h w]` or `[d h w]`, boolean.

    Returns:
      uint8 of a size that is smaller by one; bit i is the i-th of the neighbors in the
      order of memory. The boundary passes where it is neither 0 nor the largest number.
    """
    patterns = np.zeros(np.subtract(mask.shape, 1), np.uint8)
    for i, corner in enumerate(itertools.product((0, 1), repeat=mask.ndim)):
        window = tuple(slice(c, c + n) for c, n in zip(corner, patterns.shape))
        patterns |= mask[window].astype(np.uint8) << np.uint8(i)
    return patterns


def element_sizes(spacing: Sequence[float]) -> np.ndarray:
    """Return the length, `[16]`, or the area, `[256]`, for each of `element_patterns`.

    Args:
      spacing: of the pixels or voxels, for each axis.
    """
    return _lengths(*spacing) if len(spacing) == 2 else _areas(spacing)


def _lengths(height: float, width: float) -> np.ndarray:
    a, b, c, d = (np.arange(16) >> i & 1 for i in range(4))
    count = a + b + c + d
    diagonal = np.hypot(height, width)
    lengths = np.zeros(16)
    lengths[(count == 1) | (count == 3)] = diagonal / 2  # cuts one corner off
    lengths[(count == 2) & (a == b)] = width  # runs along a row
    lengths[(count == 2) & (a == c)] = height
    lengths[(count == 2) & (a == d)] = diagonal  # cuts two corners off
    return lengths


def _areas(spacing: Sequence[float]) -> np.ndarray:
    areas = np.zeros(256)
    for pattern in range(1, 255):
        inside = {corner: bool(pattern >> i & 1) for i, corner in enumerate(CORNERS)}
        for loop in _loops(inside):
            areas[pattern] += _triangle_areas(_cut(loop) * spacing).sum()
    return areas


def _loops(inside: Mapping[Point, bool]) -> Iterator[np.ndarray]:
    """Yield the polygons `[n 3]` that separate the corners inside from the others."""
    neighbors = collections.defaultdict(list)
    # Where two diagonals of a side are possible, the fewer corners are separated.
    separated = sum(inside.values()) <= 4
    for side in SIDES:
        for start, end in _segments(side, inside, separated):
            neighbors[start].append(end)
            neighbors[end].append(start)
    while neighbors:
        loop = [next(iter(neighbors))]
        while ahead := [p for p in neighbors.pop(loop[-1]) if p in neighbors]:
            loop.append(ahead[0])
        yield np.array(loop) / 2


def _segments(
    side: Sequence[Point], inside: Mapping[Point, bool], separated: bool
) -> list[tuple[Point, Point]]:
    """The edges of the polygons on a side, between middles of its edges, times two."""
    is_inside = [inside[corner] for corner in side]
    middles = [tuple(np.add(side[k - 1], side[k]).tolist()) for k in range(4)]
    crossed = [middles[k] for k in range(4) if is_inside[k - 1] != is_inside[k]]
    if len(crossed) < 4:
        return [tuple(crossed)] if crossed else []
    return [
        (middles[k], middles[(k + 1) % 4])
        for k in range(4)
        if is_inside[k] == separated
    ]


def _cut(loop: np.ndarray) -> np.ndarray:
    """Cut a polygon into the fan of triangles `[n-2 3 3]` with the largest area."""
    fans = []
    for k in range(len(loop)):
        first, *rest = np.roll(loop, k, axis=0)
        fans.append(np.array([(first, *pair) for pair in itertools.pairwise(rest)]))
    return max(fans, key=lambda fan: _triangle_areas(fan).sum())


def _triangle_areas(triangles: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(triangles, 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
