"""Volume files for tests."""

import nibabel as nib
import numpy as np
import pytest

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.runtime.errors import UserError


def voxels(shape=(5, 6, 7), dtype=np.int16):
    """Distinct values, which no two orientations put in the same order."""
    values = np.arange(np.prod(shape)).reshape(shape)
    return (values - values.size // 2).astype(dtype)


def write_nifti(path, codes, array=None, oblique=False):
    """Write a NIfTI file whose axes run towards `codes`, with different spacings."""
    array = voxels() if array is None else array
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    affine = np.eye(4)
    for axis, (patient, sign) in enumerate(wanted):
        affine[:3, axis] = 0
        affine[int(patient), axis] = sign * (0.7, 0.8, 2.5)[axis]
    if oblique:
        angle = 0.2
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    affine[:3, 3] = (-12.5, 30.25, 7.0)
    assert oblique or nib.aff2axcodes(affine) == tuple(codes)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def expected_slices(path):
    """Return `[slice row column]` towards superior, posterior, left, by nibabel."""
    image = nib.load(path)
    now = nib.io_orientation(image.affine)
    wanted = nib.orientations.axcodes2ornt(("S", "P", "L"))
    turn = nib.orientations.ornt_transform(now, wanted)
    return nib.orientations.apply_orientation(np.asarray(image.dataobj), turn)


def write_mask(volume, target, dtype=np.uint8):
    """Write the positive voxels of a volume."""
    with VolumeWriter(target, volume, dtype) as out:
        for k, image in enumerate(volume.slices()):
            out.write(k, (image > 0).astype(dtype))


def refused(path, match):
    """Check that opening a volume is a `UserError` with this text."""
    with pytest.raises(UserError, match=match), open_volume(path):
        pass
