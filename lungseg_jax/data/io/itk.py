"""NRRD and MetaImage volumes, through SimpleITK.

SimpleITK reads a part of a file without the rest only if its voxels are uncompressed. So
every volume gets a small header (.mhd) of ours that points at its voxels, where they are
or decompressed.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io.decompression import damaged, decompress, require_length
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.stored_voxels import (
    AT_END,
    StoredVoxels,
    find_voxels,
    is_nrrd,
)
from lungseg_jax.data.io.volumes import (
    Volume,
    require_content,
    require_gray_volume,
    require_orthogonal,
    require_plausible,
)
from lungseg_jax.runtime import native_output
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

GZIP_MAGIC = b"\x1f\x8b"  # a zlib stream starts with another byte
# Beside a header of ours, which names it. A % in that name would be a format to MetaIO.
VOXELS = "voxels.raw"
_MET_TYPES = {
    sitk.sitkUInt8: "MET_UCHAR",
    sitk.sitkInt8: "MET_CHAR",
    sitk.sitkUInt16: "MET_USHORT",
    sitk.sitkInt16: "MET_SHORT",
    sitk.sitkUInt32: "MET_UINT",
    sitk.sitkInt32: "MET_INT",
    sitk.sitkUInt64: "MET_ULONG_LONG",
    sitk.sitkInt64: "MET_LONG_LONG",
    sitk.sitkFloat32: "MET_FLOAT",
    sitk.sitkFloat64: "MET_DOUBLE",
}

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # our errors say the same


@contextlib.contextmanager
def open_volume(path: Path) -> Iterator[Volume]:
    """Open an NRRD or MetaImage volume; temporary files go to TMPDIR.

    Raises:
      UserError: the file cannot be read, is damaged, is not a gray 3D image, declares
        more voxels than any CT scan, or stores them elsewhere or in an unknown way.
    """
    name = require_utf8(path)
    require_content(path)
    geometry, pixel_type, is_placed = _read_information(path, name)
    with tempfile.TemporaryDirectory(prefix="lungseg-") as scratch:
        file = _ensure_seekable(path, geometry, pixel_type, Path(scratch))
        read_plane = plane_reader(file, geometry, path)
        yield Volume(str(path), geometry, read_plane, is_placed=is_placed)


def plane_reader(
    file: Path, geometry: Geometry, path: Path
) -> Callable[[int, int], np.ndarray]:
    """Return (axis, index) -> `[slower axis, faster axis]`, for an uncompressed file.

    Args:
      file: read by SimpleITK.
      geometry: of its voxels.
      path: the file that the user knows, for errors.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with native_output.discarded():
            reader.ReadImageInformation()
    except RuntimeError as e:
        raise _unreadable(path, e) from e

    def read_plane(axis: int, index: int) -> np.ndarray:
        start, size = [0, 0, 0], list(geometry.size)
        start[axis], size[axis] = index, 1
        reader.SetExtractIndex(start)
        reader.SetExtractSize(size)
        try:
            with native_output.discarded():
                array = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as e:
            raise _unreadable(path, e) from e
        return np.squeeze(array, axis=2 - axis)

    return read_plane


def write_mhd_header(
    scratch: Path, geometry: Geometry, pixel_type: int, *, is_big_endian: bool = False
) -> Path:
    """Write a header for raw voxels, and return its path.

    Args:
      scratch: folder for the header; VOXELS in it is a file with the voxels at its end.
      geometry: only its size is written.
      pixel_type: of SimpleITK.
      is_big_endian: the byte order of the voxels.
    """
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"DimSize = {' '.join(map(str, geometry.size))}",
        f"ElementType = {_MET_TYPES[pixel_type]}",
        f"ElementByteOrderMSB = {is_big_endian}",
        "HeaderSize = -1",
        f"ElementDataFile = {VOXELS}",
    ]
    header = scratch / "plain.mhd"
    header.write_text("\n".join(lines) + "\n")
    return header


def _read_information(path: Path, name: str) -> tuple[Geometry, int, bool]:
    """Return the geometry and pixel type of a file, and whether it states its axes.

    The voxels are not read.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    # By itself, it knows suffixes in lower case only.
    reader.SetImageIO("NrrdImageIO" if is_nrrd(path) else "MetaImageIO")
    try:
        with native_output.discarded():
            reader.ReadImageInformation()
    except RuntimeError as e:
        raise _unreadable(path, e) from e
    size = reader.GetSize()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    require_gray_volume(path, len(size), reader.GetNumberOfComponents())
    if reader.GetPixelID() not in _MET_TYPES:
        raise UserError(
            f"{path} holds {sitk.GetPixelIDValueAsString(reader.GetPixelID())}.",
            rule="integers, or 32 or 64-bit floats.",
            remedy="save it as one of these.",
        )
    dimension = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    geometry = Geometry(
        tuple(size),
        tuple(reader.GetSpacing()[:3]),
        tuple(reader.GetOrigin()[:3]),
        tuple(direction.ravel().tolist()),
    )
    require_orthogonal(geometry, path)
    require_plausible(geometry, path)
    # Only of NRRD; other spaces, such as "scanner-xyz", say nothing of the patient.
    space = reader.HasMetaDataKey("NRRD_space") and reader.GetMetaData("NRRD_space")
    is_placed = not is_nrrd(path) or "superior" in (space or "")
    return geometry, reader.GetPixelID(), is_placed


def _ensure_seekable(
    path: Path, geometry: Geometry, pixel_type: int, scratch: Path
) -> Path:
    """Return a header in `scratch` that points at the voxels, decompressed if need be."""
    bytes_per_voxel = sitk.Image(1, 1, pixel_type).GetSizeOfPixelComponent()
    payload = int(np.prod(geometry.size)) * bytes_per_voxel
    raw = scratch / VOXELS
    stored = find_voxels(path)
    if stored.is_compressed:
        size = _decompress(stored, raw, payload)
    else:
        raw.symlink_to(stored.file.absolute())
        size = stored.file.stat().st_size - max(0, stored.start)
    require_length(stored.file, size, payload)
    # The header finds the voxels from the end.
    if size > payload and stored.start != AT_END:
        raise damaged(stored.file, f"{size - payload} bytes follow its voxels")
    is_big_endian = stored.is_big_endian
    return write_mhd_header(scratch, geometry, pixel_type, is_big_endian=is_big_endian)


def _decompress(stored: StoredVoxels, target: Path, max_bytes: int) -> int:
    """Decompress voxels into a file, and return their size in bytes."""
    with stored.file.open("rb") as file:
        file.seek(max(0, stored.start))
        is_gzip = file.peek(2)[:2] == GZIP_MAGIC
        path = stored.file
        return decompress(file, target, is_gzip=is_gzip, max_bytes=max_bytes, path=path)


def _unreadable(path: Path, error: RuntimeError) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(
        f"{path} cannot be read: {lines[-1][:160] if lines else 'no reason given'}",
        rule="an intact NRRD, MetaImage or DICOM volume with orthogonal axes.",
        remedy="copy the file again from its source, or save it again.",
    )
