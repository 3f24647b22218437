"""Volumes are read in the radiologist's orientation and written back in their own."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from volume_files import expected_slices, write_mask, write_nifti

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volumes import require_same_grid
from lungseg_jax.runtime.errors import UserError

# (axis of the patient, sign) of each axis of the file: 6 orders, 8 signs.
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("RL", "PA", "IS"))
    for codes in itertools.product(*order)
]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reads_and_writes_every_orientation(codes, tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    source = write_nifti(tmp_path / "in.nii.gz", codes)
    with open_volume(source) as volume:
        slices = np.stack(list(volume.slices()))
        np.testing.assert_array_equal(slices, expected_slices(source))
        assert (volume.count, *volume.shape) == slices.shape
        spacings = dict(zip(codes, (0.7, 0.8, 2.5), strict=True))
        axes = ("IS", "PA", "RL")
        spacing = [next(mm for c, mm in spacings.items() if c in pair) for pair in axes]
        np.testing.assert_allclose(volume.spacing_mm, spacing, rtol=1e-6)
        for target in ("out.nii", "out.nii.gz"):
            write_mask(volume, tmp_path / target)
    before = nib.load(source)
    for target in ("out.nii", "out.nii.gz"):
        after = nib.load(tmp_path / target)
        np.testing.assert_allclose(after.affine, before.affine, rtol=1e-6, atol=1e-5)
        assert after.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(
            np.asarray(after.dataobj), np.asarray(before.dataobj) > 0
        )


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("oblique", [False, True])
def test_a_grid_is_the_same_in_any_order_of_its_voxels(codes, oblique, tmp_path):
    source = nib.load(write_nifti(tmp_path / "a.nii", "LPS", oblique=oblique))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(source.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    nib.save(source.as_reoriented(turn), tmp_path / "b.nii")
    moved = source.affine.copy()
    moved[1, 3] += 0.2
    elsewhere = nib.Nifti1Image(np.asarray(source.dataobj), moved)
    nib.save(elsewhere.as_reoriented(turn), tmp_path / "c.nii")
    with (
        open_volume(tmp_path / "a.nii") as a,
        open_volume(tmp_path / "b.nii") as b,
        open_volume(tmp_path / "c.nii") as c,
    ):
        np.testing.assert_array_equal([*a.slices()], [*b.slices()])
        require_same_grid(a, b)
        with pytest.raises(UserError, match="different sizes or geometries"):
            require_same_grid(a, c)


def test_keeps_the_geometry_of_an_oblique_volume(tmp_path):
    source = write_nifti(tmp_path / "in.nii", "LPS", oblique=True)
    with open_volume(source) as volume:
        write_mask(volume, tmp_path / "out.nii.gz")
    before, after = nib.load(source), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(after.dataobj), np.asarray(before.dataobj) > 0
    )


@pytest.mark.parametrize("degrees", [0, 10, 46, 90, 170])
def test_measures_how_oblique_a_volume_is(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    expected = min(degrees % 90, 90 - degrees % 90)
    for direction in (
        (cos, -sin, 0, sin, cos, 0, 0, 0, 1),
        (0, 0, 1, cos, -sin, 0, sin, cos, 0),
    ):
        geometry = Geometry((2, 2, 2), direction=direction)
        assert geometry.tilt == pytest.approx(expected, abs=1e-5)
