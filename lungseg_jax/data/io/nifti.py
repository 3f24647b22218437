"""NIfTI-1 and NIfTI-2 volumes, through nibabel.

Reference: nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileslice import fileslice
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from lungseg_jax.data.io.decompression import (
    BLOCK,
    damaged,
    decompress,
    read_start,
    require_length,
)
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volumes import (
    Volume,
    require_content,
    require_gray_volume,
    require_orthogonal,
    require_plausible,
)
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

MAX_PADDING_BYTES = 2**20  # header extensions before the voxels, and padding after them
_GZIP = b"\x1f\x8b"  # at the start of a compressed file
_TO_MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the code of the unit: m, mm, um
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_SCANNER = 1  # a code of an sform or qform: scanner-based coordinates
_ROUNDING = 0.01  # between the spacings in a header, relative
_PLACEMENT = ("pixdim", "xyzt_units", "qform_code", "sform_code")
_PLACEMENT += ("quatern_b", "quatern_c", "quatern_d")
_PLACEMENT += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


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

    The sform, the qform, their codes and the units of a NIfTI volume are copied as they
    are: readers differ in which of the two they follow, and the two may differ. A NIfTI-2
    volume gets a NIfTI-2 header.
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
    if source is None:
        affine = _affine(volume.geometry)
        header.set_xyzt_units("mm", "sec")
        header.set_qform(affine, _SCANNER)
        header.set_sform(affine, _SCANNER)
    else:
        for field in _PLACEMENT:
            header[field] = source[field]
    no_extensions = bytes(4)
    return header.binaryblock + no_extensions


def read_geometry(header: nib.Nifti1Header, where: str | Path) -> Geometry:
    """Return the voxel grid that a header declares; `where` names it.

    Raises:
      UserError: it is not that of a gray 3D image with orthogonal axes and one spacing.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    require_gray_volume(where, len(shape))
    pixdim = [float(mm) for mm in header["pixdim"][1:4]]
    if not all(0 < mm < math.inf for mm in pixdim):
        raise damaged(where, f"its voxels measure {tuple(pixdim)}")
    to_mm = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = _preferred_affine(header, where)
    spacing = [mm * to_mm for mm in pixdim]
    return affine_geometry(shape, affine * to_mm, where, spacing=spacing)


def affine_geometry(
    size: tuple[int, int, int],
    affine: np.ndarray,
    where: str | Path,
    *,
    spacing: Sequence[float] | None = None,
) -> Geometry:
    """Return the voxel grid of an affine `[4 4]` from voxels to RAS; `where` names it.

    Args:
      size: voxels along x, y, z.
      affine: in mm.
      where: for errors.
      spacing: in mm, if it is stated elsewhere, too.

    Raises:
      UserError: its axes are not orthogonal, or it is that of no CT scan.
    """
    axes, lengths = _axes(affine)
    geometry = Geometry(
        tuple(size),
        tuple(lengths.tolist() if spacing is None else spacing),
        tuple((_RAS_TO_LPS * affine[:3, 3]).tolist()),
        tuple((_RAS_TO_LPS[:, None] * axes).ravel().tolist()),
    )
    require_orthogonal(geometry, where)
    require_plausible(geometry, where)
    return geometry


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


def _preferred_affine(header, where: str | Path) -> np.ndarray:
    """Return the affine `[4 4]` from voxels to RAS that ITK 5.4 would follow.

    The sform if it is orthogonal, and the only one, in scanner coordinates or equal to
    the qform but for the signs of axes; else the qform. A file without either has its axes
    along L, P and S.
    """
    has_qform, has_sform = header["qform_code"] > 0, header["sform_code"] > 0
    if not has_qform and not has_sform:
        return np.diag([*_RAS_TO_LPS, 1.0])
    qform, sform = _qform(header), header.get_sform()
    if has_sform and _is_orthogonal(sform):
        is_scanner = header["sform_code"] == _SCANNER
        if not has_qform or is_scanner or _is_equal_but_for_signs(sform, qform):
            _require_one_spacing(header, sform, where)
            return sform
    return qform if has_qform else sform


def _is_equal_but_for_signs(sform: np.ndarray, qform: np.ndarray) -> bool:
    """Compare as ITK does, whose singular vectors do not tell an axis from its opposite."""
    signs = np.where((sform * qform)[:3].sum(axis=0) < 0, -1.0, 1.0)
    signs[3] = 1.0
    return np.allclose(sform * signs, qform, rtol=0, atol=1e-4)


def _require_one_spacing(header, sform: np.ndarray, where: str | Path) -> None:
    """Refuse an sform with a spacing of its own: ITK follows pixdim, nibabel the sform."""
    stated, columns = header["pixdim"][1:4], np.linalg.norm(sform[:3, :3], axis=0)
    if not np.allclose(columns, stated, rtol=_ROUNDING, atol=0):
        sizes = [" x ".join(f"{mm:.4g}" for mm in mms) for mms in (columns, stated)]
        raise UserError(
            f"{where} has voxels of {sizes[0]} by its sform and {sizes[1]} by its pixdim.",
            rule="both state one spacing; programs differ in which of them they follow.",
            remedy="correct the wrong one in its header, or convert the scan again.",
        )


def _qform(header) -> np.ndarray:
    """Return the qform `[4 4]`, whose quaternion may be rounded, as ITK reads it.

    nibabel refuses quaternions longer than 1, and reflections other than -1 and 1.
    """
    b, c, d = (float(header[f"quatern_{axis}"]) for axis in "bcd")
    square = 1.0 - (b * b + c * c + d * d)
    a = math.sqrt(square) if square > 1e-7 else 0.0  # `quat2mat` normalises the rest
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = quat2mat((a, b, c, d)) * header["pixdim"][1:4]
    if header["pixdim"][0] < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return affine


def _axes(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions of the axes, columns of `[3 3]`, and their lengths `[3]`."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        return affine[:3, :3] / lengths, lengths


def _is_orthogonal(affine: np.ndarray) -> bool:
    axes, _ = _axes(affine)
    with np.errstate(all="ignore"):
        return bool(np.allclose(axes @ axes.T, np.eye(3), rtol=0, atol=1e-4))


def _affine(geometry: Geometry) -> np.ndarray:
    """Return the affine `[4 4]` from voxels to RAS."""
    affine = np.eye(4)
    direction = np.reshape(geometry.direction, (3, 3))
    affine[:3, :3] = _RAS_TO_LPS[:, None] * direction * geometry.spacing
    affine[:3, 3] = _RAS_TO_LPS * geometry.origin
    return affine


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
