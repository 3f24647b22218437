"""Where the voxels of a volume lie in the patient, and which of them are an axial slice."""

import dataclasses
import itertools

import numpy as np

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """As ITK and DICOM have it, axes x y z of the file, millimetres towards left,
    posterior and superior (LPS).

    The standard orientation of a slice is the radiologist's: it is axial, from feet to
    head the slices are numbered, rows run from front to back and columns from the
    patient's right to left. Oblique axes count as the nearest ones.

    Attributes:
      size: voxels along x, y, z.
      spacing: in mm along x, y, z.
      origin: of the first voxel, LPS.
      direction: row by row; column i is the direction of axis i.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    @property
    def axes(self) -> tuple[int, int, int]:
        """The axis of the file that runs along slices, rows and columns."""
        cosines = np.abs(np.reshape(self.direction, (3, 3)))

        def likeness(axes):  # to left, posterior, superior
            return sum(cosines[lps, axis] for lps, axis in enumerate(axes))

        left, posterior, superior = max(itertools.permutations(range(3)), key=likeness)
        return superior, posterior, left

    @property
    def count(self) -> int:
        """Axial slices."""
        return self.size[self.axes[0]]

    @property
    def shape(self) -> tuple[int, int]:
        """Of a standard slice."""
        return self.size[self.axes[1]], self.size[self.axes[2]]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between slices, rows and columns of the standard orientation."""
        return tuple(self.spacing[axis] for axis in self.axes)

    def position(self, k: int) -> int:
        """The index of standard slice `k` along its axis of the file."""
        return k if self._rises(0) else self.count - 1 - k

    def to_standard(self, plane: np.ndarray) -> np.ndarray:
        """What a file has at a position, `[slower axis, faster axis]` -> `[h w]`."""
        _, rows, columns = self.axes
        turned = plane if rows > columns else plane.T
        return turned[self._step(1), self._step(2)]

    def from_standard(self, image: np.ndarray) -> np.ndarray:
        """The inverse of `to_standard`."""
        _, rows, columns = self.axes
        turned = image[self._step(1), self._step(2)]
        return turned if rows > columns else turned.T

    def _rises(self, which: int) -> bool:
        """Whether slices, rows or columns run as the file does."""
        towards = (2, 1, 0)[which]
        return np.reshape(self.direction, (3, 3))[towards, self.axes[which]] > 0

    def _step(self, which: int) -> slice:
        return slice(None, None, 1 if self._rises(which) else -1)
