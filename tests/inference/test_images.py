"""Scans in the Python interface: paths, and images of SimpleITK and nibabel."""

import copy
import dataclasses
import errno
import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series  # of tests/data/io/

from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.inference.predict_files import predict_files
from lungseg_jax.inference.prediction_rows import read_rows
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime.errors import UserError


@pytest.fixture
def scan(images):
    """An image of SimpleITK, stored head first, and its rows back to front."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(images[::-1, ::-1]))
    image.SetSpacing((1.0, 0.8, 2.5))  # pixels in the proportion of `write_series`
    image.SetOrigin((-12.0, 30.0, 7.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
    return image


@pytest.fixture
def predicted(segmenter, scan, tmp_path):
    """What `lungseg predict` writes for the scan: the mask, and the rows of its slices."""
    sitk.WriteImage(scan, str(tmp_path / "in.nii"))
    tasks = plan_outputs(tmp_path / "in.nii", tmp_path / "out.nii")
    limit = segmenter.settings.review_below
    with PredictionTable(tmp_path / "t.csv", review_below=limit) as table:
        predict_files(segmenter, tasks, table)
    (rows,) = read_rows(tmp_path / "t.csv").values()
    return sitk.ReadImage(str(tmp_path / "out.nii")), rows[:-1]


def assert_same_place(one, other):
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(one, what)(), getattr(other, what)(), atol=1e-5
        )


def test_a_scan_of_simpleitk_gets_the_mask_of_predict(segmenter, scan, predicted):
    mask, rows = predicted
    segmentation = segmenter(scan)
    image = segmentation.to_image()
    assert isinstance(image, sitk.Image) and image.GetPixelID() == sitk.sitkUInt8
    assert_same_place(image, scan)
    np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, (image, mask)))
    assert pickle.dumps(segmentation)
    upright = sitk.GetArrayFromImage(mask)[::-1, ::-1]
    np.testing.assert_array_equal(segmentation.mask, upright)
    assert segmentation.mask.any() and segmentation.mask.dtype == bool
    assert [row["review"] == "1" for row in rows] == segmentation.review.tolist()


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_scan_of_nibabel_gets_an_image_of_its_class(
    segmenter, predicted, image_class, tmp_path
):
    loaded = nib.load(tmp_path / "in.nii")
    scan = image_class(np.asarray(loaded.dataobj), loaded.affine)
    scan.set_qform(loaded.affine, 2)
    scan.header["cal_min"], scan.header["cal_max"] = -1000, 400
    segmentation = pickle.loads(pickle.dumps(segmenter(scan)))
    image = segmentation.to_image()
    assert type(image) is image_class and image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert image.header["qform_code"] == 2
    assert image.header["cal_min"] == image.header["cal_max"] == 0
    np.testing.assert_array_equal(
        np.asarray(image.dataobj), sitk.GetArrayFromImage(predicted[0]).T
    )
    nib.save(image, tmp_path / "again.nii")
    again = nib.load(tmp_path / "again.nii")
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(image.dataobj))


def test_a_path_is_read(segmenter, scan, predicted, images, tmp_path):
    for path in (tmp_path / "in.nii", str(tmp_path / "in.nii")):
        image = segmenter(path).to_image()
        assert_same_place(image, scan)
        np.testing.assert_array_equal(
            *map(sitk.GetArrayFromImage, (image, predicted[0]))
        )
    write_series(tmp_path / "series", array=(images + 1024).astype(np.int16))
    segmentation = segmenter(tmp_path / "series")
    np.testing.assert_array_equal(segmentation.mask, segmenter(scan).mask)
    assert segmentation.to_image().GetSpacing() == pytest.approx((0.75, 0.6, 2.5))


def test_maps_are_images_too(segmenter, scan):
    segmentation = segmenter(scan)
    for name in ("probability", "uncertainty", "mutual_information"):
        image = segmentation.to_image(name)
        assert image.GetPixelID() == sitk.sitkFloat32
        array = sitk.GetArrayFromImage(image)[::-1, ::-1]
        np.testing.assert_array_equal(array, getattr(segmentation, name))
    with pytest.raises(UserError, match="unknown image 'review'"):
        segmentation.to_image("review")


@pytest.mark.parametrize("limit", [None, 0.0])
def test_a_scan_is_also_reviewed_because_of_its_anatomy(
    trained, scan, limit, monkeypatch
):
    """With no limit, or one that flags nothing, these flags are all there are."""
    tuning = {}
    if limit is not None:
        tuning = copy.deepcopy(trained.tuning)
        tuning["choices"]["all"]["review_below"] = limit
    plain = LungSegmenter(dataclasses.replace(trained, tuning=tuning))
    flags = {"unlike_neighbors": [0, 1, 0, 0, 0], "sides_differ": [0, 0, 0, 1, 0]}
    for name, found in flags.items():
        where = f"lungseg_jax.inference.review.{name}"
        monkeypatch.setattr(where, lambda masks, found=found: np.array(found, bool))
    assert plain(scan).review.tolist() == [False, True, False, True, False]


def test_arrays_and_single_slices_have_no_geometry(segmenter, images, tmp_path):
    np.save(tmp_path / "slice.npy", images[0])
    np.save(tmp_path / "volume.npy", images)
    expected = segmenter(images[0])
    slice_of_a_file = segmenter(tmp_path / "slice.npy")
    np.testing.assert_array_equal(slice_of_a_file.mask, expected.mask)
    for path in ("slice.npy", "volume.npy"):
        with pytest.raises(UserError, match="an array has no geometry"):
            segmenter(tmp_path / path).to_image()


def simpleitk_image(shape, affine):
    image = sitk.Image(shape, sitk.sitkInt16)
    image.SetDirection(affine[:3, :3].ravel().tolist())
    return image


def nibabel_image(shape, affine=None):
    affine = np.eye(4) if affine is None else affine
    return nib.Nifti1Image(np.zeros(shape, np.int16), affine)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SHEARED = np.eye(4) + np.diag([0.5, 0.0, 0.0], 1)


@pytest.mark.parametrize(
    "image,message",
    [
        (sitk.Image((4, 4), sitk.sitkInt16), "2 dimensions"),
        (sitk.Image((4, 4, 4), sitk.sitkVectorInt16, 3), "3 values per voxel"),
        (nibabel_image((4, 4, 4, 2)), "4 dimensions"),
        (nibabel_image((4, 4, 4), SHEARED), "sheared"),
        (simpleitk_image((4, 4, 4), SHEARED), "sheared"),
        (nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), None), "has no affine"),
        (nibabel_image((4, 4, 4)).header, "Nifti1Header is not an image"),
        (sitk.Image((4, 4, 4), sitk.sitkComplexFloat32), "holds complex64"),
        (sitk.Image((4, 4, 4), sitk.sitkLabelUInt8), "is a label map"),
        (nib.Nifti1Image(np.zeros((4, 4, 4), RGB), np.eye(4)), "holds colors"),
        (sitk.ImageFileReader(), "ImageFileReader is not an image"),
        ("nowhere.nii.gz", "nowhere.nii.gz does not exist"),
        ("nowhere.tif", "nowhere.tif"),
        ("nowhere", "does not exist"),
    ],
)
def test_refuses_what_is_not_a_scan(segmenter, image, message):
    with pytest.raises(UserError, match=message):
        segmenter(image)


def test_refuses_other_units(segmenter):
    gray = sitk.GetImageFromArray(np.arange(4**3, dtype=np.uint8).reshape(4, 4, 4) * 4)
    with pytest.raises(UserError, match="the image has gray values"):
        segmenter(gray)


def test_a_disk_that_fails_is_a_plain_error(segmenter, scan, tmp_path, monkeypatch):
    def fail(self, k):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Geometry, "file_index", fail)
    sitk.WriteImage(scan, str(tmp_path / "in.nii"))
    with pytest.raises(UserError, match="slice 0 of .*in.nii cannot be read: Input"):
        segmenter(tmp_path / "in.nii")


def test_refuses_a_list_of_scans(segmenter, scan):
    """NumPy takes an image of SimpleITK apart into a row of pixels."""
    for scans in ([scan], (scan, scan), [[scan]]):
        with pytest.raises(UserError, match="a list of scans .Image. is not an image"):
            segmenter(scans)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_refuses_a_scan_of_nibabel_whose_file_is_damaged_or_gone(
    suffix, segmenter, tmp_path
):
    """nibabel reads the voxels when they are asked for."""
    file = tmp_path / f"scan{suffix}"
    noise = np.random.default_rng(0).integers(-1000, 1000, (9, 9, 9), np.int16)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), file)
    scan = nib.load(file)
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(UserError, match=f"voxels of {file} cannot be read"):
        segmenter(scan)
    file.unlink()
    with pytest.raises(UserError, match=f"voxels of {file} cannot be read"):
        segmenter(scan)
