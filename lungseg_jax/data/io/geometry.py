"""The position of a volume's voxels in the patient, and its axial slices."""

import dataclasses
import functools
import itertools

import numpy as np

# Distances of pixels in a CT scan of a person; those of slices may be larger. A header in
# other units than it says has a thousandth or a thousand times of them.
MIN_MM, MAX_MM = 0.01, 100.0
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The voxel grid of a file, in the convention of ITK and DICOM.

    x, y, z are the axes of the file; positions are in millimetres towards left, posterior
    and superior (LPS).

    The standard orientation of a slice is the radiologist's: slices are axial and numbered
    from feet to head, rows run from front to back, and columns from the patient's right to
    left. Oblique axes are treated as the nearest of these.

    Attributes:
      size: voxels along x, y, z.
      spacing: mm along x, y, z.
      origin: position of the first voxel, LPS.
      direction: `[3 3]` row by row; column i is the direction of axis i.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __str__(self) -> str:
        def numbers(values, separator=" x "):
            return separator.join(f"{value + 0.0:.6g}" for value in values)

        direction = numbers(self.direction, " ")
        return (
            f"{numbers(self.size)} voxels of {numbers(self.spacing)} mm, the first at "
            f"({numbers(self.origin, ', ')}), axes {direction}"
        )

    @functools.cached_property
    def axes(self) -> tuple[int, int, int]:
        """The axes of the file that run along slices, rows and columns."""
        cosines = np.abs(np.reshape(self.direction, (3, 3)))

        def alignment(axes):  # with left, posterior, superior
            return sum(cosines[lps, axis] for lps, axis in enumerate(axes))

        left, posterior, superior = max(itertools.permutations(range(3)), key=alignment)
        return superior, posterior, left

    @property
    def count(self) -> int:
        """The number of axial slices."""
        return self.size[self.axes[0]]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a standard slice."""
        return self.size[self.axes[1]], self.size[self.axes[2]]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between slices, rows and columns in the standard orientation."""
        return tuple(self.spacing[axis] for axis in self.axes)

    @property
    def aspect(self) -> float:
        """The height of a pixel over its width, in the standard orientation."""
        _, row, column = self.spacing_mm
        return row / column

    @property
    def tilt(self) -> float:
        """The largest angle between an axis and the nearest one of the patient, degrees."""
        cosines = np.abs(np.reshape(self.direction, (3, 3)))
        nearest = min(cosines[lps, axis] for lps, axis in enumerate(self.axes[::-1]))
        return float(np.degrees(np.arccos(min(nearest, 1.0))))

    @property
    def standard(self) -> "Geometry":
        """The grid of the same voxels, stored in the standard orientation."""
        axes = self.axes[::-1]
        size, spacing = (
            tuple(of_axes[axis] for axis in axes)
            for of_axes in (self.size, self.spacing)
        )
        is_ascending = np.array([self._is_ascending(which) for which in (2, 1, 0)])
        direction = np.reshape(self.direction, (3, 3))[:, axes]
        # The last voxel of a descending axis is the first of the standard one.
        first = ~is_ascending * (np.array(size) - 1) * spacing
        return Geometry(
            size,
            spacing,
            tuple((self.origin + direction @ first).tolist()),
            tuple(np.where(is_ascending, direction, -direction).ravel().tolist()),
        )

    def is_close_to(self, other: "Geometry") -> bool:
        """Return whether another grid has the same voxels, but for rounding in the files.

        The files may store them in another order.
        """
        # As stored, the rounding of a spacing does not add up along an axis.
        pairs = (self, other), (self.standard, other.standard)
        return any(a.size == b.size and a._has_close_axes(b) for a, b in pairs)

    def file_index(self, k: int) -> int:
        """Return the index of standard slice `k` along its axis of the file."""
        return k if self._is_ascending(0) else self.count - 1 - k

    def index(self, k: int) -> tuple[int | slice, ...]:
        """Return the index of standard slice `k` in an array `[z y x]` of the file."""
        where: list[int | slice] = [slice(None)] * 3
        where[2 - self.axes[0]] = self.file_index(k)
        return tuple(where)

    def to_standard(self, plane: np.ndarray) -> np.ndarray:
        """Turn a plane of the file, `[slower axis, faster axis]`, into a slice `[h w]`."""
        _, rows, columns = self.axes
        turned = plane if rows > columns else plane.T
        return turned[self._step(1), self._step(2)]

    def from_standard(self, image: np.ndarray) -> np.ndarray:
        """Turn a slice `[h w]` into a plane of the file: the inverse of `to_standard`."""
        _, rows, columns = self.axes
        turned = image[self._step(1), self._step(2)]
        return turned if rows > columns else turned.T

    def _has_close_axes(self, other: "Geometry") -> bool:
        return all(
            np.allclose(
                getattr(self, field), getattr(other, field), rtol=1e-4, atol=1e-3
            )
            for field in ("spacing", "origin", "direction")
        )

    def _is_ascending(self, which: int) -> bool:
        """Whether slices (0), rows (1) or columns (2) run the same way as in the file."""
        towards = (2, 1, 0)[which]
        return np.reshape(self.direction, (3, 3))[towards, self.axes[which]] > 0

    def _step(self, which: int) -> slice:
        return slice(None, None, 1 if self._is_ascending(which) else -1)
