"""DICOM series: the order and the distances of slices, compared with SimpleITK's reader."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, CORONAL, TILTED, edit, stored, write_series
from volume_files import refused

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.volume_writer import VolumeWriter


def read_with_itk(folder, uid):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
    return reader.Execute()


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("distance", [2.5, -2.5])
@pytest.mark.parametrize("axes", [AXIAL, TILTED, CORONAL])
def test_writes_a_series_as_a_volume(axes, distance, suffix, tmp_path):
    uid = write_series(tmp_path / "in", axes, distance)
    with open_volume(tmp_path / "in") as volume:
        with VolumeWriter(tmp_path / f"out{suffix}", volume, np.uint8) as out:
            for k, image in enumerate(volume.slices()):
                out.write(k, image > 0)
    series = read_with_itk(tmp_path / "in", uid)
    mask = sitk.ReadImage(str(tmp_path / f"out{suffix}"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(series) > 0
    )
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        ours, theirs = getattr(mask, what)(), getattr(series, what)()
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=what)


def test_reads_slices_in_hounsfield_units_from_feet_to_head(tmp_path):
    write_series(tmp_path / "in")
    with open_volume(tmp_path / "in") as volume:
        assert volume.spacing_mm == pytest.approx((2.5, 0.6, 0.75))
        np.testing.assert_array_equal(list(volume.slices()), stored() - 1024.0)
    write_series(tmp_path / "down", distance=-2.5)
    with open_volume(tmp_path / "down") as volume:
        np.testing.assert_array_equal(list(volume.slices()), stored()[::-1] - 1024.0)


def test_reads_axial_slices_of_a_coronal_series(tmp_path):
    write_series(tmp_path / "in", CORONAL)
    with open_volume(tmp_path / "in") as volume:
        # Rows of the files run from head to feet, files from front to back.
        assert (volume.count, *volume.shape) == (9, 6, 8)
        np.testing.assert_array_equal(volume.read(8), stored()[:, 0, :] - 1024.0)
        assert volume.spacing_mm == pytest.approx((0.6, 2.5, 0.75))


def slices_in_order(folder):
    return sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).InstanceNumber)


def test_accepts_positions_rounded_to_tenths(tmp_path):
    write_series(tmp_path / "in", distance=0.625)
    for file in (tmp_path / "in").iterdir():
        d = pydicom.dcmread(file)
        d.ImagePositionPatient = [round(float(x), 1) for x in d.ImagePositionPatient]
        d.save_as(file)
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == 6
        assert volume.spacing_mm[0] == pytest.approx(0.625, abs=0.02)
    (third,) = (
        f for f in (tmp_path / "in").iterdir() if pydicom.dcmread(f).InstanceNumber == 3
    )
    third.unlink()
    refused(tmp_path / "in", "apart, most slices")


def test_a_missing_slice_of_a_short_series_is_where_the_distance_is_larger(tmp_path):
    write_series(tmp_path / "in", array=stored()[:4], skip=(2,))
    refused(tmp_path / "in", "are 5.000 mm apart, most slices 2.500 mm")


def test_refuses_a_missing_slice(tmp_path):
    write_series(tmp_path / "in", skip=(3,))
    refused(tmp_path / "in", "are 5.000 mm apart, most slices 2.500 mm")


def test_refuses_a_duplicate_slice(tmp_path):
    uid = write_series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.rename(path.with_name(f"A{path.name}"))
    write_series(tmp_path / "in", uid=uid, array=stored()[:1])
    refused(tmp_path / "in", "have the same position")


def test_refuses_slices_of_different_sizes(tmp_path):
    uid = write_series(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.rename(path.with_name(f"A{path.name}"))
    small = np.zeros((1, 4, 4), np.int16)
    write_series(tmp_path / "in", uid=uid, array=small, distance=-90)
    refused(tmp_path / "in", "different sizes")


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelSpacing": [0.6, 0.7]},
        {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]},
    ],
)
def test_refuses_slices_of_different_geometries(elements, tmp_path):
    write_series(tmp_path / "in")
    edit([tmp_path / "in/IM0003"], **elements)
    refused(tmp_path / "in", "different sizes, spacings or orientations")


def test_refuses_a_tilted_gantry(tmp_path):
    sheared = AXIAL.copy()
    sheared[2] = [0, np.sin(0.2), np.cos(0.2)]
    write_series(tmp_path / "in", sheared)
    refused(tmp_path / "in", "(?s)shifted sideways .a tilted gantry.*dcm2niix")


@pytest.mark.parametrize("axes", [AXIAL, TILTED])
@pytest.mark.parametrize("first", [1, 2, 5])
def test_refuses_slices_that_are_shifted_sideways(axes, first, tmp_path):
    """From slice `first` on; the last one is back in line, unless it is the first."""
    write_series(tmp_path / "in", axes)
    files = slices_in_order(tmp_path / "in")
    for file in files[first : max(first + 1, len(files) - 1)]:
        position = pydicom.dcmread(file).ImagePositionPatient + 0.5 * axes[0]
        edit([file], ImagePositionPatient=position.tolist())
    where = f"between {files[first - 1].name} and {files[first].name}"
    refused(tmp_path / "in", f"shifted sideways by 0.[45]\\d* mm, most {where}")


def test_accepts_oblique_positions_rounded_to_tenths(tmp_path):
    """Each is up to 0.09 mm beside its line."""
    axes = np.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
    write_series(
        tmp_path / "in", axes, distance=5.13, array=np.tile(stored(), (9, 1, 1))
    )
    for file in (tmp_path / "in").iterdir():
        position = pydicom.dcmread(file).ImagePositionPatient
        edit([file], ImagePositionPatient=[round(float(x), 1) for x in position])
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == 54


def test_refuses_slices_of_two_patients(tmp_path):
    write_series(tmp_path / "in")
    edit([tmp_path / "in/IM0003"], PatientID="1")
    refused(tmp_path / "in", "have different patient IDs")
    edit([tmp_path / "in/IM0003"], PatientID="")
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())


@pytest.mark.parametrize(
    "element,name",
    [
        ("StudyInstanceUID", "study UIDs"),
        ("FrameOfReferenceUID", "frames of reference"),
    ],
)
def test_refuses_slices_of_two_studies_or_frames_of_reference(element, name, tmp_path):
    """Positions in different frames of reference are not comparable."""
    write_series(tmp_path / "in")
    edit((tmp_path / "in").iterdir(), **{element: "1.2.3"})
    edit([tmp_path / "in/IM0003"], **{element: "1.2.4"})
    refused(tmp_path / "in", f"have different {name}")


def test_refuses_more_slices_than_any_scan_has(tmp_path, monkeypatch):
    monkeypatch.setattr("lungseg_jax.data.io.volumes.MAX_SLICES", 5)
    write_series(tmp_path / "in")
    refused(tmp_path / "in", "declares 6 slices")
