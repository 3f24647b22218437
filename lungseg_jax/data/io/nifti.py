"""NIfTI-1 and NIfTI-2 volumes, through nibabel.

Reference: nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileslice import fileslice
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from lungseg_jax.data.io.decompression import (
    BLOCK,
    damaged,
    decompress,
    read_start,
    require_length,
)
from lungseg_jax.data.io.nifti_placement import read_geometry, write_placement
from lungseg_jax.data.io.volumes import Volume, require_content
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

MAX_PADDING_BYTES = 2**20  # header extensions before the voxels, and padding after them
_GZIP = b"\x1f\x8b"  # at the start of a compressed file


@contextlib.contextmanager
def open_volume(path: Path) -> Iterator[Volume]:
    """Open a NIfTI volume; a compressed one is decompressed into TMPDIR first.

    Raises:
      UserError: the file cannot be read, is damaged, is not a gray 3D image, has sheared
        axes, or declares more voxels than any CT scan.
    """
    require_utf8(path)
    require_content(path)
    is_gzip = read_start(path, len(_GZIP), is_gzip=False) == _GZIP  # whatever its name
    header = _read_header(path, is_gzip=is_gzip)
    geometry = read_geometry(header, path)
    dtype, start, slope, inter = _storage(header, path)
    stop = start + math.prod(geometry.size) * dtype.itemsize
    with tempfile.TemporaryDirectory(prefix="lungseg-") as scratch:
        plain = path
        if is_gzip:
            plain = Path(scratch) / "plain.nii"
            with path.open("rb") as file:
                decompress(
                    file,
                    plain,
                    is_gzip=True,
                    max_bytes=stop + MAX_PADDING_BYTES,
                    path=path,
                )
        require_length(path, plain.stat().st_size, stop)
        with plain.open("rb") as file:

            def read(where: tuple) -> np.ndarray:
                # As ArrayProxy does, in half the time. Not mapped: mapped pages count as
                # memory.
                voxels = fileslice(file, where, geometry.size, dtype, start, order="F")
                return apply_read_scaling(voxels, slope, inter)

            yield Volume(
                str(path),
                geometry,
                _plane_reader(
                    read, geometry.size, dtype, _value_dtype(dtype, slope, inter)
                ),
                header=header,
                is_placed=bool(header["qform_code"] > 0 or header["sform_code"] > 0),
            )


def volume_header(volume: Volume, dtype: np.dtype) -> bytes:
    """Return the bytes that precede the voxels of a file like `volume`.

    The placement of a NIfTI volume is copied, see `write_placement`, and a NIfTI-2 volume
    gets a NIfTI-2 header.
    """
    source = volume.header if isinstance(volume.header, nib.Nifti1Header) else None
    is_second_version = isinstance(source, nib.Nifti2Header)
    version = nib.Nifti2Header if is_second_version else nib.Nifti1Header
    header = version(endianness="<")
    try:
        header.set_data_shape(volume.geometry.size)
    except HeaderDataError as e:
        raise UserError(
            f"a NIfTI file like {volume.name} cannot be written: {e}",
            remedy="choose another format, such as .nrrd.",
        ) from e
    if not is_second_version:
        header["regular"] = b"r"  # unused, but nifti1.h says that it must be "r"
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    header.set_data_offset(header.single_vox_offset)
    write_placement(header, volume.geometry, source)
    no_extensions = bytes(4)
    return header.binaryblock + no_extensions


def _read_header(path: Path, *, is_gzip: bool) -> nib.Nifti1Header:
    start = read_start(path, nib.Nifti2Header.sizeof_hdr, is_gzip=is_gzip)
    for version in (nib.Nifti1Header, nib.Nifti2Header):
        size = version.sizeof_hdr
        if len(start) < size or not version.may_contain_header(start[:size]):
            continue
        header = version(start[:size], check=False)
        if header["sizeof_hdr"] == size and header["magic"] == version.single_magic:
            return header
    raise damaged(path, "it does not start like a NIfTI file with voxels")


def _storage(header, path: Path) -> tuple[np.dtype, int, float, float]:
    """Return the dtype of the voxels, their offset in bytes, slope and intercept."""
    try:
        dtype = header.get_data_dtype()
        slope, inter = header.get_slope_inter()
    except KeyError as e:
        raise damaged(path, f"its data type {e} is unknown") from e
    except HeaderDataError as e:
        raise damaged(path, str(e)) from e
    if dtype.fields:
        raise UserError(
            f"{path} holds color voxels.",
            rule="a volume is gray.",
            remedy="save one gray channel as a separate file.",
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(
            f"{path} holds {dtype} voxels.",
            rule="integers, or 32 or 64-bit floats.",
            remedy="save it as one of these.",
        )
    offset = float(header["vox_offset"])
    start = int(offset) if math.isfinite(offset) else 0
    # A slope of 0 or NaN, which nibabel returns as None, means that there is no scaling.
    slope, inter = (1.0, 0.0) if slope is None else (slope, inter)
    return dtype, max(start, header.sizeof_hdr), slope, inter


def _value_dtype(stored: np.dtype, slope: float, inter: float) -> np.dtype:
    """Return the dtype of scaled values; as in ITK, integers become float32."""
    stored = stored.newbyteorder("=")
    if (slope, inter) == (1.0, 0.0) or stored == np.float64:
        return stored
    return np.dtype(np.float32)


def _plane_reader(
    read: Callable[[tuple], np.ndarray],
    size: tuple[int, int, int],
    stored: np.dtype,
    values: np.dtype,
) -> Callable[[int, int], np.ndarray]:
    """Return (axis, index) -> `[slower axis, faster axis]` of scaled values.

    Args:
      read: returns scaled voxels by their indices `[x y z]`.
      size: voxels along x, y, z.
      stored, values: the dtypes of voxels in the file, and of the result.
    """

    def read_plane(axis: int, index: int) -> np.ndarray:
        if axis == 2:
            plane = read((..., index))
        elif axis == 1:
            plane = read((slice(None), index))
        else:  # reading every row is faster than seeking to a voxel in each
            starts = range(0, depth, step)
            blocks = [read((..., slice(z, z + step)))[index].copy() for z in starts]
            plane = np.concatenate(blocks, axis=-1)
        return plane.T.astype(values, copy=False)  # a file's first axis is its fastest

    width, height, depth = size
    step = max(1, BLOCK // (width * height * stored.itemsize))
    return read_plane
