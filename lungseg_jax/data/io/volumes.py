"""Volumes as axial slices, read one at a time, so memory does not grow with their number.

Each volume format has a module of its own, which opens a file as a `Volume`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.data.io.geometry import MAX_MM, MIN_MM, Geometry
from lungseg_jax.data.io.images import MAX_PIXELS
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import missing_path

MAX_SLICES = 2**15 - 1  # the most that a NIfTI-1 header can declare
_ROUNDING = 1e-3  # of directions in text headers


class Volume:
    """Axial slices in the standard orientation, see `Geometry`.

    Args:
      name: for messages.
      geometry: the voxel grid of the file.
      read_plane: (axis of the file, index) -> `[slower axis, faster axis]`.
      has_spacing: False for a format that stores no geometry.
      header: the file's own header; a mask in the same format copies its placement.
      is_placed: False for a file that does not state its position in the patient.
      sources: of DICOM, the file of each of the planes along the last axis, and its number
        in this file.

    Attributes:
      spacing_mm: distance between slices, rows and columns; None without a geometry.
    """

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        read_plane: Callable[[int, int], np.ndarray],
        *,
        has_spacing: bool = True,
        header: object = None,
        is_placed: bool = True,
        sources: Sequence[tuple[Path, int]] = (),
    ):
        self.name, self.geometry, self._read_plane = name, geometry, read_plane
        self.spacing_mm = geometry.spacing_mm if has_spacing else None
        self.header, self.is_placed, self.sources = header, is_placed, sources

    @property
    def count(self) -> int:
        """The number of slices."""
        return self.geometry.count

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of each slice."""
        return self.geometry.shape

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return bool(self.sources)

    @property
    def aspect(self) -> float:
        """The height of a pixel over its width; not 1 in a series of coronal slices."""
        return self.geometry.aspect if self.spacing_mm else 1.0

    def read(self, k: int) -> np.ndarray:
        """Return slice `k` as `[h w]`, in Hounsfield units if the file defines them.

        Raises:
          UserError: the slice cannot be read, or has pixels that are not finite.
        """
        name = f"slice {k} of {self.name}"
        try:
            plane = self._read_plane(self.geometry.axes[0], self.geometry.file_index(k))
        except OSError as e:
            raise UserError(f"{name} cannot be read: {e.strerror or e}.") from e
        require_finite(plane, name)
        return np.ascontiguousarray(self.geometry.to_standard(plane))

    def slices(self) -> Iterator[np.ndarray]:
        """Return an iterator over all slices, from feet to head."""
        return (self.read(k) for k in range(self.count))


def require_same_grid(first: Volume, second: Volume) -> None:
    """Refuse two volumes whose voxels are not at the same places.

    Nobody knows which voxels of an array those of a volume with a geometry are, even if
    their sizes are equal: it may be stored head first, or mirrored.

    Raises:
      UserError: their sizes or geometries differ, or only one has a geometry.
    """
    placed = [volume for volume in (first, second) if volume.spacing_mm]
    if len(placed) == 1:
        array = second if first in placed else first
        raise UserError(
            f"{array.name} has no geometry, and {placed[0].name} has one.",
            rule="both volumes have a geometry, or neither has.",
            remedy="save the array in a format with a geometry, such as .nii.gz; in "
            "Python, segmentation.to_image() has that of its scan.",
        )
    if not first.geometry.is_close_to(second.geometry):
        raise UserError(
            f"{first.name} and {second.name} have different sizes or geometries:\n"
            f"  {first.name}: {_grid(first)}\n  {second.name}: {_grid(second)}",
            rule="both volumes cover the same grid.",
            remedy="resample one to the other.",
        )


def _grid(volume: Volume) -> str:
    if volume.spacing_mm:
        return str(volume.geometry)
    return f"{' x '.join(map(str, volume.geometry.size))} voxels"


def require_content(path: Path) -> None:
    """Refuse a file that does not exist or is empty.

    Raises:
      UserError: it is one of these.
    """
    if not path.exists():
        raise missing_path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file.")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty.", remedy="copy it again from its source.")


def require_gray_volume(
    where: str | Path, dimensions: int, channels: int = 1, *, remedy: str = ""
) -> None:
    """Refuse an image that is not a gray volume.

    Args:
      where: its name.
      dimensions: their number.
      channels: values per voxel.
      remedy: what to do; by default, that for a file.

    Raises:
      UserError: it has other dimensions than three, or several values per voxel.
    """
    if dimensions == 3 and channels == 1:
        return
    for_file = "save one time point, or one channel, as a separate file."
    if dimensions < 3 and channels == 1:
        for_file = "save it as TIFF, PNG or NPY, or as a volume of one slice."
    values = f" and {channels} values per voxel" if channels > 1 else ""
    raise UserError(
        f"{where} has {dimensions} dimensions{values}.",
        rule="a volume has three dimensions and is gray.",
        remedy=remedy or for_file,
    )


def require_orthogonal(geometry: Geometry, where: str | Path) -> None:
    """Refuse axes that are not at right angles, as of a tilted gantry; `where` names it.

    DICOM series are checked by their positions.

    Raises:
      UserError: they are not, or not of length 1.
    """
    axes = np.reshape(geometry.direction, (3, 3))
    if not np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=_ROUNDING):
        raise UserError(
            f"{where} has sheared axes, or its header is damaged.",
            rule="a volume with orthogonal axes.",
            remedy="resample it to an orthogonal grid first.",
        )


def require_plausible(geometry: Geometry, path: str | Path) -> None:
    """Refuse a header that no CT scan has, before anything is allocated for it.

    Raises:
      UserError: a size or spacing is damaged, or there are too many voxels.
    """
    height, width = geometry.shape
    is_finite = np.isfinite(geometry.spacing + geometry.origin).all()
    if min(geometry.size) < 1 or min(geometry.spacing) <= 0 or not is_finite:
        raise UserError(
            f"{path} has a damaged header.", rule="a size, and a spacing above 0."
        )
    least = MIN_MM * (1 - 1e-6)  # NIfTI has them in float32, which rounds 0.01 down
    if min(geometry.spacing) < least or max(geometry.spacing_mm[1:]) > MAX_MM:
        voxels = " x ".join(f"{mm:.4g}" for mm in geometry.spacing)
        raise UserError(
            f"{path} has voxels of {voxels} mm.",
            rule=f"at least {MIN_MM} mm, and pixels of at most {MAX_MM:g} mm.",
            remedy="correct the spacing in its header, or its unit.",
        )
    if height * width > MAX_PIXELS or geometry.count > MAX_SLICES:
        raise UserError(
            f"{path} declares {geometry.count} slices of {width} x {height} pixels.",
            rule=f"at most {MAX_SLICES} slices of {MAX_PIXELS} pixels.",
            remedy="if it is not really that large, the file is damaged.",
        )
