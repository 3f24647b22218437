"""Where the voxels of a NIfTI volume are: its sform and its qform, as ITK follows them.

Reference: nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat

from lungseg_jax.data.io.decompression import damaged
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volumes import (
    require_gray_volume,
    require_orthogonal,
    require_plausible,
)
from lungseg_jax.runtime.errors import UserError

_TO_MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # by the code of the unit: m, mm, um
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_SCANNER = 1  # a code of an sform or qform: scanner-based coordinates
_ROUNDING = 0.01  # between the spacings in a header, relative
_PLACEMENT = ("pixdim", "xyzt_units", "qform_code", "sform_code")
_PLACEMENT += ("quatern_b", "quatern_c", "quatern_d")
_PLACEMENT += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


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


def write_placement(
    header: nib.Nifti1Header, geometry: Geometry, source: nib.Nifti1Header | None
) -> None:
    """Place a volume in its header.

    The sform, the qform, their codes and the units of the source are copied as they are:
    readers differ in which of the two they follow, and the two may differ.

    Args:
      header: of the new file; it is changed.
      geometry: its voxel grid.
      source: the header of the volume that it is like; None if that was no NIfTI file.
    """
    if source is None:
        affine = _affine(geometry)
        header.set_xyzt_units("mm", "sec")
        header.set_qform(affine, _SCANNER)
        header.set_sform(affine, _SCANNER)
    else:
        for field in _PLACEMENT:
            header[field] = source[field]


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
    a = math.sqrt(square) if square > 1e-7 else 0.0  # `quat2mat` normalizes the rest
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
