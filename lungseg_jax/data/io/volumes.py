"""Volumes, read slice by slice: memory holds one slice, whatever their number.

SimpleITK reads a part of a file without reading the rest where the voxels lie in it as
they are. Compressed files and DICOM series are brought into such a form first, on disk.
"""

import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.intensity import require_finite
from lungseg_jax.data.io import decompression, dicom, nifti
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.images import MAX_PIXELS
from lungseg_jax.data.io.npy import ARRAY, open_array
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ARRAY)
MOST_SLICES = 2**15 - 1  # of what a NIfTI header can say
_GRAY = (
    sitk.sitkUInt8,
    sitk.sitkInt8,
    sitk.sitkUInt16,
    sitk.sitkInt16,
    sitk.sitkUInt32,
    sitk.sitkInt32,
    sitk.sitkUInt64,
    sitk.sitkInt64,
    sitk.sitkFloat32,
    sitk.sitkFloat64,
)

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # they repeat what we raise


class Volume:
    """Axial slices in the standard orientation, see `Geometry`.

    Attributes:
      name: for messages.
      geometry: as the file has it.
      spacing_mm: between slices, rows and columns; None of an array.
      nifti_header: of a NIfTI file; None of others.
      is_placed: False of a NIfTI file that does not say how it lies in the patient.
    """

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        planes,
        *,
        has_spacing: bool = True,
        nifti_header: bytes | None = None,
    ):
        self.nifti_header = nifti_header
        self.is_placed = nifti_header is None or nifti.is_placed(nifti_header)
        self.name, self.geometry, self._planes = name, geometry, planes
        self.spacing_mm = geometry.spacing_mm if has_spacing else None

    @property
    def count(self) -> int:
        """Slices."""
        return self.geometry.count

    @property
    def shape(self) -> tuple[int, int]:
        """Of each slice."""
        return self.geometry.shape

    def read(self, k: int) -> np.ndarray:
        """Slice `k` as `[h w]`, in Hounsfield units where the file says how.

        Raises:
          UserError: it cannot be read, or has pixels that are not finite.
        """
        axis, position = self.geometry.axes[0], self.geometry.position(k)
        plane = self._planes(axis, position)
        require_finite(plane, f"slice {k} of {self.name}")
        return np.ascontiguousarray(self.geometry.to_standard(plane))

    def slices(self) -> Iterator[np.ndarray]:
        """All slices, feet first."""
        return (self.read(k) for k in range(self.count))


def is_volume(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def is_dicom(path: Path) -> bool:
    """Whether it is a DICOM file, or a folder with one directly in it."""
    return dicom.is_dicom(path)


@contextlib.contextmanager
def open_volume(path: Path, *, series: str = "") -> Iterator[Volume]:
    """A volume, for as long as the context lasts.

    Args:
      path: NIfTI, NRRD, MetaImage or NumPy file, a DICOM file, or the folder of a series.
      series: UID of the one that is meant, where a folder has several.

    Raises:
      UserError: it cannot be read, is damaged, is no gray 3D image, or declares more
        pixels than anyone has.
    """
    if path.name.lower().endswith(ARRAY):
        yield _of_array(path)
        return
    # Temporary files lie where TMPDIR says.
    with tempfile.TemporaryDirectory(prefix="lungseg-") as scratch:
        header = None
        if dicom.is_dicom(path):
            file, geometry = dicom.read_series(path, series, Path(scratch))
        else:
            geometry, bytes_each = _describe(path)
            file = decompression.ensure_seekable(
                path, geometry, bytes_each, Path(scratch)
            )
        if file.suffix.lower() == ".nii":
            with file.open("rb") as start:
                header = start.read(nifti.HEADER)
        planes = _planes(file, geometry, path)
        yield Volume(str(path), geometry, planes, nifti_header=header)


def _describe(path: Path) -> tuple[Geometry, int]:
    """The geometry of a file, and the bytes of a voxel; no voxel is read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(require_utf8(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise _unreadable(path, e) from e
    size = reader.GetSize()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    if len(size) != 3 or reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{path} is an image of {len(size)} dimensions with "
            f"{reader.GetNumberOfComponents()} values in a voxel.",
            rule="a volume has three dimensions and is gray.",
            remedy="save one time point, or one channel, as a file of its own.",
        )
    if reader.GetPixelID() not in _GRAY:
        raise UserError(
            f"{path} holds {sitk.GetPixelIDValueAsString(reader.GetPixelID())}.",
            rule="integers, or 32 or 64-bit floats.",
        )
    dimension = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    geometry = Geometry(
        tuple(size),
        tuple(reader.GetSpacing()[:3]),
        tuple(reader.GetOrigin()[:3]),
        tuple(direction.ravel().tolist()),
    )
    check_size(geometry, path)
    return geometry, sitk.Image(1, 1, reader.GetPixelID()).GetSizeOfPixelComponent()


def check_size(geometry: Geometry, path: Path) -> None:
    """Refuses what no CT has, before room is made for it."""
    height, width = geometry.shape
    if (
        not min(geometry.size)
        or not np.isfinite(geometry.spacing + geometry.origin).all()
    ):
        raise UserError(f"{path} has a damaged header.", rule="a size and a spacing.")
    if height * width > MAX_PIXELS or geometry.count > MOST_SLICES:
        raise UserError(
            f"{path} declares {geometry.count} slices of {width} x {height} pixels.",
            rule=f"at most {MOST_SLICES} slices of {MAX_PIXELS} pixels.",
            remedy="if the size is not true, the file is damaged.",
        )


def _planes(file: Path, geometry: Geometry, path: Path):
    """`planes(axis, position) -> [slower axis, faster axis]` of a plain file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))

    def planes(axis: int, position: int) -> np.ndarray:
        start, size = [0, 0, 0], list(geometry.size)
        start[axis], size[axis] = position, 1
        four = [0] * (reader.GetDimension() - 3)
        reader.SetExtractIndex(start + four)
        reader.SetExtractSize(size + four)
        try:
            array = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as e:
            raise _unreadable(path, e) from e
        return np.squeeze(array, axis=2 - axis)

    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise _unreadable(path, e) from e
    return planes


def _of_array(path: Path) -> Volume:
    array = open_array(path)
    if array.ndim == 2:
        array = array[None]
    n, height, width = array.shape
    geometry = Geometry((width, height, n))
    check_size(geometry, path)
    contiguous, offset = array.flags.c_contiguous, array.offset

    def planes(axis: int, position: int) -> np.ndarray:
        if not contiguous:
            return np.array(array[position])
        # Read and not mapped: what is mapped counts as memory.
        start = offset + position * height * width * array.dtype.itemsize
        plane = np.fromfile(path, array.dtype, height * width, offset=start)
        return plane.reshape(height, width).astype(array.dtype.newbyteorder("="))

    return Volume(str(path), geometry, planes, has_spacing=False)


def _unreadable(path: Path, error: RuntimeError) -> UserError:
    if not path.exists():
        return UserError(f"{path} does not exist.")
    if not path.stat().st_size:
        return UserError(f"{path} is empty.", remedy="copy it again from its source.")
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with contextlib.suppress(OSError, EOFError, zlib.error), opened(path, "rb") as file:
        if nifti.is_second_version(file.read(4)):
            return UserError(
                f"{path} is NIfTI-2.",
                rule="NIfTI-1, NRRD, MetaImage or DICOM.",
                remedy="save it as NIfTI-1, as nibabel's Nifti1Image does.",
            )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(
        f"{path} cannot be read: {lines[-1][:160] if lines else 'no reason given'}",
        rule="a whole NIfTI, NRRD or MetaImage volume with axes at right angles, or DICOM.",
        remedy="copy the file again from its source, or save it anew.",
    )
