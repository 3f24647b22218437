"""NIfTI-1 and NIfTI-2: headers, scaling, and the same placement as SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import expected_slices, refused, voxels, write_mask

from lungseg_jax.data.io import decompression, nifti
from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.in_memory import open_image
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.runtime.errors import UserError

SHAPE = (5, 6, 7)
SPACING = np.diag([0.7, 0.8, 2.5, 1])


def affine(angle=0.0, origin=(-12.5, 30.25, 7.0)):
    """Axes turned about z and then about x, with different spacings."""
    turn, tilt = np.eye(4), np.eye(4)
    cos, sin = np.cos(angle), np.sin(angle)
    turn[:2, :2] = tilt[1:3, 1:3] = [[cos, -sin], [sin, cos]]
    placed = tilt @ turn @ SPACING
    placed[:3, 3] = origin
    return placed


def write(path, qform, sform, codes, *, image_class=nib.Nifti1Image, order="<"):
    """Write a file with both forms, including those whose code is 0."""
    header = image_class.header_class(endianness=order)
    image = image_class(voxels(), SPACING, header)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nib.save(image, path)
    return path


def write_stored(path, *, dtype=np.int16, **fields):
    """Write a file with these header fields, and voxels 0, 1, 2, ... as they are."""
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(dtype)
    header.set_zooms(np.diag(SPACING)[:3])
    header.set_sform(SPACING, 1)
    header.set_data_offset(352)
    for field, value in fields.items():
        header[field] = value
    stored = np.arange(np.prod(SHAPE)).astype(dtype)
    path.write_bytes(header.binaryblock + bytes(4) + stored.tobytes())
    return path


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codes", [(1, 2), (0, 2), (1, 0), (0, 0)])
def test_a_mask_keeps_both_forms_units_and_version(codes, order, image_class, tmp_path):
    """Readers differ in which form they follow, and the two may differ."""
    shifted = np.diag([-0.7, -0.8, 2.5, 1])
    shifted[:3, 3] = 40, -30, 7
    options = {"image_class": image_class, "order": order}
    source = write(tmp_path / "in.nii.gz", shifted, SPACING, codes, **options)
    with open_volume(source) as volume:
        assert volume.is_placed == (codes != (0, 0))
        write_mask(volume, tmp_path / "out.nii.gz")
    before, after = nib.load(source), nib.load(tmp_path / "out.nii.gz")
    assert type(after) is image_class
    np.testing.assert_array_equal(after.affine, before.affine)
    for form in ("get_qform", "get_sform"):
        (a, code_a), (b, code_b) = (
            getattr(image, form)(coded=True) for image in (before, after)
        )
        assert code_a == code_b
        np.testing.assert_array_equal(a, b)
    assert after.header["xyzt_units"] == before.header["xyzt_units"]
    np.testing.assert_array_equal(after.header["pixdim"], before.header["pixdim"])
    positive = np.asarray(before.dataobj) > 0
    np.testing.assert_array_equal(np.asarray(after.dataobj), positive)


def test_reads_nifti_2_like_nifti_1(tmp_path):
    forms = affine(0.2), affine(0.2), (1, 1)
    write(tmp_path / "one.nii", *forms)
    write(tmp_path / "two.nii", *forms, image_class=nib.Nifti2Image)
    with (
        open_volume(tmp_path / "one.nii") as one,
        open_volume(tmp_path / "two.nii") as two,
    ):
        np.testing.assert_allclose(two.spacing_mm, one.spacing_mm, rtol=1e-6)
        np.testing.assert_array_equal(list(one.slices()), list(two.slices()))


@pytest.mark.parametrize("differ", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.1, 0.3, np.pi / 2, np.pi])
@pytest.mark.parametrize(
    "codes", [(1, 1), (0, 1), (1, 0), (2, 2), (1, 2), (2, 1), (4, 4), (1, 4), (0, 0)]
)
def test_prefers_the_form_that_simpleitk_prefers(codes, angle, differ, tmp_path):
    qform = affine(angle)
    sform = affine(angle + 0.1, origin=(5, 6, 7)) if differ else qform
    path = write(tmp_path / "in.nii", qform, sform, codes)
    image = sitk.ReadImage(str(path))
    with open_volume(path) as volume:
        ours = volume.geometry
    np.testing.assert_allclose(ours.spacing, image.GetSpacing(), rtol=1e-7)
    np.testing.assert_allclose(ours.origin, image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(ours.direction, image.GetDirection(), atol=1e-6)
    assert open_image(nib.load(path)).geometry == ours


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 2), (1, 4), (2, 4)])
@pytest.mark.parametrize("mirrored", [(0,), (1, 2), (0, 1), (0, 1, 2)])
def test_forms_that_differ_in_signs_are_one_to_simpleitk(mirrored, codes, tmp_path):
    sform = affine()
    sform[:, mirrored] *= -1
    path = write(tmp_path / "in.nii", affine(), sform, codes)
    image = sitk.ReadImage(str(path))
    with open_volume(path) as volume:
        assert volume.geometry.direction == pytest.approx(image.GetDirection())
        assert volume.geometry.origin == pytest.approx(image.GetOrigin())


@pytest.mark.parametrize("unit", ["meter", "mm", "micron", "unknown"])
def test_spacing_and_origin_are_in_millimetres(unit, tmp_path):
    scale = {"meter": 1e-3, "micron": 1e3}.get(unit, 1.0)
    placed = np.diag([scale, scale, scale, 1]) @ affine()
    image = nib.Nifti1Image(voxels(), placed)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "in.nii")
    expected = sitk.ReadImage(str(tmp_path / "in.nii"))
    with open_volume(tmp_path / "in.nii") as volume:
        np.testing.assert_allclose(volume.geometry.spacing, expected.GetSpacing())
        np.testing.assert_allclose(volume.geometry.origin, expected.GetOrigin())


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_refuses_voxels_in_other_units_than_the_header_says(scale, tmp_path):
    placed = np.diag([scale, scale, scale, 1]) @ affine()
    image = nib.Nifti1Image(voxels(), placed)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "in.nii")
    message = f"has voxels of {0.7 * scale:g} x {0.8 * scale:g} x {2.5 * scale:g} mm"
    refused(tmp_path / "in.nii", message)
    same = sitk.GetImageFromArray(voxels())
    same.SetSpacing((0.7 * scale, 0.8 * scale, 2.5 * scale))
    for in_memory in (image, same):
        with pytest.raises(UserError, match=f"the image {message}"):
            open_image(in_memory)


@pytest.mark.parametrize("codes", [(0, 1), (0, 2), (1, 1)])
def test_refuses_an_sform_with_another_spacing(codes, tmp_path):
    """ITK would follow pixdim, nibabel the sform."""
    fields = dict(zip(("qform_code", "sform_code"), codes, strict=True))
    path = write_stored(tmp_path / "in.nii", pixdim=[1] * 8, **fields)
    message = "voxels of 0.7 x 0.8 x 2.5 by its sform and 1 x 1 x 1 by its pixdim"
    refused(path, message)
    with pytest.raises(UserError, match=message):
        open_image(nib.load(path))
    rounded = [1, 0.7, 0.803, 2.5, 0, 0, 0, 0]
    path = write_stored(tmp_path / "in.nii", pixdim=rounded, **fields)
    with open_volume(path) as volume:
        assert volume.geometry.spacing == pytest.approx((0.7, 0.803, 2.5))


def test_reads_a_rounded_quaternion(tmp_path):
    """Its length may be just above 1, as some programs write it."""
    path = write_stored(
        tmp_path / "in.nii", qform_code=1, sform_code=0, quatern_d=1.00001
    )
    with open_volume(path) as volume:
        direction = np.reshape(volume.geometry.direction, (3, 3))
    np.testing.assert_allclose(direction, np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    "saved,named", [("a.nii", "b.nii.gz"), ("a.nii.gz", "b.nii"), ("a.nii.gz", "B.NII")]
)
def test_the_content_says_whether_a_file_is_compressed(saved, named, tmp_path):
    nib.save(nib.Nifti1Image(voxels(), affine()), tmp_path / saved)
    (tmp_path / saved).rename(tmp_path / named)
    with open_volume(tmp_path / named) as volume:
        expected = voxels().T[:, ::-1, ::-1]
        np.testing.assert_array_equal(list(volume.slices()), expected)
    (tmp_path / "text.nii.gz").write_text("<html>")
    refused(tmp_path / "text.nii.gz", "does not start like a NIfTI file")


def sheared():
    shear = np.eye(4)
    shear[0, 2] = 0.2
    return shear @ SPACING


def test_refuses_sheared_axes(tmp_path):
    path = write(tmp_path / "in.nii", SPACING, sheared(), (0, 1))
    refused(path, "sheared")
    for singular in (np.zeros((4, 4)), SPACING @ np.diag([1, 1, 0, 1])):
        path = write(tmp_path / "in.nii", SPACING, singular, (0, 1))
        refused(path, "sheared")
    path = write(tmp_path / "in.nii", SPACING, sheared(), (1, 1))
    with open_volume(path) as volume:  # by its qform
        assert volume.geometry.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    "slope,intercept,expected_dtype",
    [
        (2.0, -1024.0, "float32"),
        (1.0, -1024.0, "float32"),
        (0.333, 1.7, "float32"),
        (1.0, 0.0, "int16"),
        (np.nan, np.nan, "int16"),  # no scaling
        (0.0, 0.0, "int16"),
    ],
)
def test_applies_slope_and_intercept(slope, intercept, expected_dtype, tmp_path):
    scaling = {"scl_slope": slope, "scl_inter": intercept}
    path = write_stored(tmp_path / "in.nii", **scaling)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    with open_volume(path) as volume:
        first = volume.read(0)
    assert first.dtype == image.dtype == expected_dtype
    np.testing.assert_array_equal(first, image[0, ::-1, ::-1])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_scaled_values_have_the_dtype_that_simpleitk_gives(dtype, tmp_path):
    path = write_stored(tmp_path / "in.nii", dtype=dtype, scl_slope=2, scl_inter=-1)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    with open_volume(path) as volume:
        assert volume.read(0).dtype == image.dtype
        np.testing.assert_array_equal(volume.read(0), image[0, ::-1, ::-1])


def test_a_slope_of_zero_means_no_scaling(tmp_path):
    """Also with an intercept, as nifti1.h says; SimpleITK would add it."""
    path = write_stored(tmp_path / "in.nii", scl_slope=0, scl_inter=5)
    with open_volume(path) as volume:
        assert volume.read(0).min() == 0


@pytest.mark.parametrize("name", ["in.nii", "in.nii.gz"])
def test_reads_files_of_several_blocks(name, tmp_path, monkeypatch):
    """Slices along any axis: contiguous in the file, or one voxel in each of its rows."""
    for module in (decompression, nifti):
        monkeypatch.setattr(module, "BLOCK", 130)  # two planes and a bit
    for axis in range(3):
        placed = np.eye(4)
        placed[:3, :3] = np.roll(np.eye(3), axis, axis=0)
        nib.save(nib.Nifti1Image(voxels(), placed), tmp_path / name)
        with open_volume(tmp_path / name) as volume:
            slices = np.stack(list(volume.slices()))
        np.testing.assert_array_equal(slices, expected_slices(tmp_path / name))


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"pixdim": [1, 0.7, 0, 2.5, 1, 1, 1, 1]}, "its voxels measure"),
        ({"pixdim": [1, 0.7, np.nan, 2.5, 1, 1, 1, 1]}, "its voxels measure"),
        ({"sform_code": 0, "qform_code": 1, "qoffset_x": np.inf}, "damaged header"),
        ({"srow_x": [0, 0, 0, 0]}, "sheared axes, or its header is damaged"),
        ({"dim": [3, -5, 6, 7, 1, 1, 1, 1]}, "damaged header"),
        ({"dim": [4, 5, 6, 7, 2, 1, 1, 1]}, "4 dimensions"),
        ({"dim": [3, 500, 6, 7, 1, 1, 1, 1]}, "truncated"),
        ({"vox_offset": 1e6}, "truncated"),
        ({"datatype": 128}, "holds color voxels"),  # RGB
        ({"datatype": 7}, "damaged"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "invalid intercept"),
        ({"magic": b"ni1"}, "does not start like a NIfTI file"),
        ({"magic": b"abc"}, "does not start like a NIfTI file"),
        ({"sizeof_hdr": 347}, "does not start like a NIfTI file"),
    ],
)
def test_refuses_a_damaged_header(fields, message, tmp_path):
    refused(write_stored(tmp_path / "in.nii", **fields), message)


@pytest.mark.parametrize("offset", [0, np.nan, 100])
def test_voxels_never_start_inside_the_header(offset, tmp_path):
    path = write_stored(tmp_path / "in.nii", vox_offset=offset)
    content = path.read_bytes()
    path.write_bytes(content[:348] + content[352:])
    with open_volume(path) as volume:
        assert volume.read(0).min() == 0


def test_trailing_dimensions_of_one_are_dropped(tmp_path):
    image = nib.Nifti1Image(voxels()[..., None, None], SPACING)
    nib.save(image, tmp_path / "in.nii")
    with open_volume(tmp_path / "in.nii") as volume:
        assert volume.geometry.size == SHAPE
        np.testing.assert_array_equal(open_image(image).read(3), volume.read(3))


def test_refuses_a_size_that_no_nifti_1_header_can_hold(tmp_path):
    wide = sitk.Image((40_000, 2, 2), sitk.sitkUInt8)
    sitk.WriteImage(wide, str(tmp_path / "in.mha"))
    with open_volume(tmp_path / "in.mha") as volume:
        with pytest.raises(UserError, match="cannot be written"):
            VolumeWriter(tmp_path / "out.nii", volume, np.uint8).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mha"]


def test_refuses_an_empty_file(tmp_path):
    (tmp_path / "none.nii").touch()
    refused(tmp_path / "none.nii", "is empty")
