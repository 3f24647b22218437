"""DICOM series, compared with SimpleITK's own reader, and files that are not series."""

import os
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    CORONAL,
    TILTED,
    edit,
    stored,
    write_series,
    write_without_image,
)
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RawDataStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
)

from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.runtime.errors import UserError


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


def test_reads_a_single_file(tmp_path):
    write_series(tmp_path / "in", array=stored()[:1])
    (file,) = (tmp_path / "in").iterdir()
    assert is_dicom(file) and is_dicom(tmp_path / "in") and not is_dicom(tmp_path)
    with open_volume(file) as volume:
        assert volume.count == 1
        np.testing.assert_array_equal(volume.read(0), stored()[0] - 1024.0)
        assert volume.spacing_mm == pytest.approx((1.0, 0.6, 0.75))
    d = pydicom.dcmread(file)
    d.SliceThickness = 5.0
    d.save_as(file)
    with open_volume(file) as volume:
        assert volume.spacing_mm == pytest.approx((5.0, 0.6, 0.75))
    for impossible in (b"0.0", b"nan", b"inf", b"-5 "):
        content = file.read_bytes()
        stated = b"\x18\x00\x50\x00DS\x04\x00"
        start = content.index(stated) + len(stated)
        file.write_bytes(content[:start] + impossible.ljust(4) + content[start + 4 :])
        with open_volume(file) as volume:
            assert volume.spacing_mm == pytest.approx((1.0, 0.6, 0.75))


def test_several_series_need_a_choice(tmp_path):
    first = write_series(tmp_path / "in", description="thin")
    for path in (tmp_path / "in").iterdir():
        path.rename(path.with_name(f"A{path.name}"))
    second = write_series(tmp_path / "in", array=stored()[:3], description="thick")
    with pytest.raises(UserError, match="has 2 series") as e:
        with open_volume(tmp_path / "in"):
            pass
    for word in (first, second, "thin", "thick", "6 files", "3 files"):
        assert word in e.value.what
    # Of the commands that read series, only one has this option.
    assert "lungseg predict with --series=UID" in e.value.remedy
    with open_volume(tmp_path / "in", series=second) as volume:
        assert volume.count == 3
    with pytest.raises(UserError, match="no series 1.2.3"):
        with open_volume(tmp_path / "in", series="1.2.3"):
            pass


def test_every_series_in_a_folder_of_patients_has_a_mask(tmp_path):
    patients = tmp_path / "patients"
    patients.mkdir()
    write_series(patients / "anna")
    uids = set()
    for description in ("thin", "thick"):
        uids.add(write_series(tmp_path / description, description=description))
        for file in (tmp_path / description).iterdir():
            target = patients / "bert" / f"{description} {file.name}"
            target.parent.mkdir(exist_ok=True)
            file.rename(target)
    tasks = plan_outputs(patients, tmp_path / "out")
    names = {str(task.target.relative_to(tmp_path / "out")) for task in tasks}
    assert names == {"anna.nii.gz", *(f"bert/{uid}.nii.gz" for uid in uids)}
    for task in tasks:
        with open_volume(task.source, series=task.series) as volume:
            assert volume.count == len(stored())


def write_pixels(file, pixels, syntax=ExplicitVRLittleEndian):
    """Replace the pixels of a file, whatever their length, which follow an icon."""
    d = pydicom.dcmread(file)
    icon = pydicom.Dataset()
    icon.Rows = icon.Columns = icon.BitsAllocated = 8
    icon.PixelData = bytes(64)
    d.IconImageSequence = [icon]
    d.file_meta.TransferSyntaxUID = syntax
    d.PixelData = pixels
    d["PixelData"].VR = "OW"
    pydicom.dcmwrite(file, d, enforce_file_format=True)


SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("length", [0, 64, 142, 160, 288])
def test_refuses_another_number_of_bytes_than_declared(length, syntax, tmp_path):
    """GDCM would fill up pixels with what is in memory."""
    write_series(tmp_path / "in")
    file = tmp_path / "in/IM0003"
    write_pixels(file, bytes(length), syntax)
    message = f"IM0003 is damaged: it has {length} of 144 bytes of pixels"
    refused(file, message)
    refused(tmp_path / "in", message)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_accepts_as_many_bytes_as_declared(syntax, tmp_path):
    write_series(tmp_path / "in")
    order = "<i2" if syntax.is_little_endian else ">i2"
    for file in (tmp_path / "in").iterdir():
        pixels = pydicom.dcmread(file).pixel_array.astype(order)
        write_pixels(file, pixels.tobytes(), syntax)
    with open_volume(tmp_path / "in") as volume:
        np.testing.assert_array_equal(list(volume.slices()), stored() - 1024.0)


def test_refuses_deflated_files_that_end_early_or_never(tmp_path, monkeypatch):
    write_series(tmp_path / "in")
    file = tmp_path / "in/IM0003"
    pixels = pydicom.dcmread(file).PixelData
    write_pixels(file, pixels, DeflatedExplicitVRLittleEndian)
    with monkeypatch.context() as m:
        m.setattr("lungseg_jax.data.io.dicom_slice._MAX_INFLATED", 100)
        refused(file, "IM0003 is damaged: it cannot be inflated to its end")
    file.write_bytes(file.read_bytes()[:-3])
    refused(file, "IM0003 is damaged")


def test_accepts_compressed_and_padded_pixels(tmp_path):
    write_series(tmp_path / "in", array=stored()[:1])
    (file,) = (tmp_path / "in").iterdir()
    d = pydicom.dcmread(file)
    d.compress(RLELossless)
    d.save_as(tmp_path / "compressed")
    with open_volume(tmp_path / "compressed") as volume:
        np.testing.assert_array_equal(volume.read(0), stored()[0] - 1024.0)
    write_pixels(file, stored()[0].tobytes() + bytes(14))
    with open_volume(file) as volume:
        np.testing.assert_array_equal(volume.read(0), stored()[0] - 1024.0)
    edit([file], Rows=3, Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    write_pixels(file, bytes(10))
    with open_volume(file) as volume:
        np.testing.assert_array_equal(volume.read(0), np.full((3, 3), -1024.0))


def slices_in_order(folder):
    return sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).InstanceNumber)


def refused(folder, match):
    with pytest.raises(UserError, match=match), open_volume(folder):
        pass


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


@pytest.mark.parametrize(
    "change,message",
    [
        ({"NumberOfFrames": 2}, "has 2 frames"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "is MONOCHROME1"),
    ],
)
def test_refuses_files_that_itk_reads_wrong(change, message, tmp_path):
    write_series(tmp_path / "in", array=stored()[:1])
    (file,) = (tmp_path / "in").iterdir()
    d = pydicom.dcmread(file)
    for key, value in change.items():
        setattr(d, key, value)
    d.PixelData = d.PixelData * change.get("NumberOfFrames", 1)
    d.save_as(file)
    refused(file, message)


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
    refused(tmp_path / "in", "shifted sideways .a tilted gantry")


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


def test_names_a_damaged_file(tmp_path):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]
    file.write_bytes(file.read_bytes()[:200])
    refused(tmp_path / "in", file.name)
    write_series(tmp_path / "in")
    file.write_bytes(file.read_bytes()[:-60])
    refused(tmp_path / "in", file.name)


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("IM0009", None, "IM0009 is a link to a file that does not exist"),
        ("IM0009", b"", "IM0009 is empty"),
        ("IM0009", bytes(100), "IM0009 is damaged"),  # cut in its preamble
        ("IM0009.dcm", b"<html>", "IM0009.dcm is damaged"),
    ],
)
def test_no_file_of_a_series_is_left_out_silently(name, content, message, tmp_path):
    write_series(tmp_path / "in", skip=[5])
    file = tmp_path / "in" / name
    if content is None:
        file.symlink_to("annexed")
    else:
        file.write_bytes(content)
    refused(tmp_path / "in", message)


def test_a_file_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]

    def refuse(path, *arguments, open=Path.open):
        if path == file:
            raise PermissionError(13, "Permission denied")
        return open(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    refused(tmp_path / "in", f"{file.name} cannot be read: Permission denied")


def test_reads_a_slice_without_a_preamble(tmp_path):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]
    file.write_bytes(file.read_bytes()[132:])
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())


def test_says_once_which_files_are_not_dicom(tmp_path, capsys):
    write_series(tmp_path / "in")
    for name in ("README", "SHA256", ".DS_Store", "notes.txt", "old.nii.gz"):
        (tmp_path / "in" / name).write_text("hello")
    (tmp_path / "in" / ".lock").symlink_to("nowhere")
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"skipped: {tmp_path}/in/README and 1 more: not DICOM"


def test_says_what_is_wrong_with_each_file(tmp_path):
    write_series(tmp_path / "in")
    cut, intact, *_ = sorted((tmp_path / "in").iterdir())
    cut.write_bytes(cut.read_bytes()[:200])
    intact.rename(tmp_path / "in" / os.fsdecode(b"\xff.dcm"))
    with pytest.raises(UserError) as e, open_volume(tmp_path / "in"):
        pass
    first, *rows = e.value.what.splitlines()
    assert first == f"2 faults in {tmp_path / 'in'}:"
    assert f"{cut} is damaged" in rows[0] and "copy it again" in rows[2]
    assert "is not valid UTF-8" in rows[3] and "rename it" in rows[5]


def test_refuses_colour(tmp_path):
    write_series(tmp_path / "in", array=stored()[:1])
    (file,) = (tmp_path / "in").iterdir()
    d = pydicom.dcmread(file)
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
    d.PixelData = bytes(3 * d.Rows * d.Columns)
    d.save_as(file)
    refused(file, "(?s)3 values per pixel.*fix: .*in gray")


def test_skips_reports_among_the_slices(tmp_path):
    write_series(tmp_path / "in")
    write_without_image(tmp_path / "in/DOSE", XRayRadiationDoseSRStorage)
    write_without_image(tmp_path / "in/DICOMDIR", MediaStorageDirectoryStorage)
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())


def test_refuses_a_disc_whose_slices_are_in_subfolders(tmp_path):
    write_without_image(tmp_path / "DICOMDIR", MediaStorageDirectoryStorage)
    write_series(tmp_path / "in")
    refused(tmp_path, "no CT slices among its files")


@pytest.mark.parametrize(
    "element,name",
    [
        ("ImagePositionPatient", "position"),
        ("ImageOrientationPatient", "orientation"),
        ("PixelSpacing", "pixel spacing"),
    ],
)
def test_refuses_slices_without_a_placement(element, name, tmp_path):
    """ITK would assume a position of 0 and pixels of 1 mm."""
    write_series(tmp_path / "in")
    for file in (tmp_path / "in").iterdir():
        d = pydicom.dcmread(file)
        del d[element]
        d.save_as(file)
    refused(tmp_path / "in", f"does not state its {name}")


def replace_text(file, tag, text):
    """Replace the value of an element; pydicom does not write all of those tested."""
    head, _, tail = file.read_bytes().partition(tag)
    old = int.from_bytes(tail[:2], "little")
    value = text.encode() + b" " * (len(text) % 2)
    length = len(value).to_bytes(2, "little")
    file.write_bytes(head + tag + length + value + tail[2 + old :])


@pytest.mark.parametrize(
    "tag,name,text",
    [
        (b"\x28\x00\x30\x00DS", "pixel spacing", r"0\0"),
        (b"\x28\x00\x30\x00DS", "pixel spacing", r"nan\nan"),
        (b"\x28\x00\x30\x00DS", "pixel spacing", r"inf\inf"),
        (b"\x28\x00\x30\x00DS", "pixel spacing", r"-1\-1"),
        (b"\x28\x00\x30\x00DS", "pixel spacing", "wide"),
        (b"\x20\x00\x32\x00DS", "position", r"inf\0\0"),
        (b"\x20\x00\x32\x00DS", "position", r"0\0"),
        (b"\x20\x00\x37\x00DS", "orientation", r"0\0\0\0\0\0"),
        (b"\x20\x00\x37\x00DS", "orientation", r"1\0\0\1\0\0"),
        (b"\x20\x00\x37\x00DS", "orientation", r"2\0\0\0\2\0"),
    ],
)
def test_refuses_an_invalid_placement(tag, name, text, tmp_path):
    """ITK would assume another one, or keep negative distances."""
    write_series(tmp_path / "in")
    for file in (tmp_path / "in").iterdir():
        replace_text(file, tag, text)
    message = f"{file} states an invalid {name} .*: {re.escape(text)}"
    refused(file, message)
    refused(tmp_path / "in", message.replace(str(file), ""))


@pytest.mark.parametrize("slope", ["0", "0.0", "nan", "inf", "wide"])
def test_refuses_an_invalid_slope(slope, tmp_path):
    """GDCM would take 1 for 0."""
    write_series(tmp_path / "in")
    file = tmp_path / "in/IM0003"
    replace_text(file, b"\x28\x00\x53\x10DS", slope)
    message = rf"IM0003 states an invalid Rescale Slope \(0028,1053\): {slope}\."
    refused(file, message)
    refused(tmp_path / "in", message)


@pytest.mark.parametrize("slope", [None, 2])
def test_accepts_a_slope_and_none(slope, tmp_path):
    write_series(tmp_path / "in")
    edit((tmp_path / "in").iterdir(), RescaleSlope=slope)
    with open_volume(tmp_path / "in") as volume:
        expected = stored() * float(slope or 1) - 1024
        np.testing.assert_array_equal(list(volume.slices()), expected)


def test_accepts_a_rounded_orientation(tmp_path):
    write_series(tmp_path / "in", TILTED)
    rounded = [0.71, 0.71, 0, -0.71, 0.71, 0]
    edit((tmp_path / "in").iterdir(), ImageOrientationPatient=rounded)
    with open_volume(tmp_path / "in") as volume:
        assert volume.geometry.direction[0] == pytest.approx(2**-0.5)


def test_refuses_more_slices_than_any_scan_has(tmp_path, monkeypatch):
    monkeypatch.setattr("lungseg_jax.data.io.volumes.MAX_SLICES", 5)
    write_series(tmp_path / "in")
    refused(tmp_path / "in", "declares 6 slices")


# --- what is not a slice of a CT scan ---


LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
OTHERS = [
    (LOCALIZER, "localizer"),
    ({"Modality": "MR", "SOPClassUID": MRImageStorage}, "modality MR, not CT"),
    ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "coronal or sagittal"),
]


@pytest.mark.parametrize("elements,reason", OTHERS)
def test_leaves_out_what_is_not_a_ct_slice(elements, reason, tmp_path, capsys):
    folder = tmp_path / "in"
    write_series(folder, array=stored()[:2])
    edit(folder.iterdir(), **elements)
    (first, _) = sorted(folder.iterdir())
    refused(first, f"{first} is not an axial CT slice: .*{reason}")
    refused(folder, f"no CT slices among its files:\n  {first} and 1 more: .*{reason}")

    for file in folder.iterdir():
        file.rename(folder / f"A{file.name}")
    uid = write_series(folder)
    with open_volume(folder) as volume:
        assert volume.count == len(stored())
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"skipped: {folder}/A") and reason in line
    with open_volume(folder, series=uid) as volume:
        assert volume.count == len(stored())
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "storage_class,reason",
    [
        (XRayRadiationDoseSRStorage, "report"),
        (RTStructureSetStorage, "structure set"),
        (SegmentationStorage, "segmentation"),
        (EncapsulatedPDFStorage, "document"),
        (GrayscaleSoftcopyPresentationStateStorage, "presentation state"),
        (RawDataStorage, "not an image"),
    ],
)
def test_says_what_a_file_without_an_image_is(storage_class, reason, tmp_path, capsys):
    write_without_image(tmp_path / "other", storage_class)
    refused(tmp_path / "other", f"not an axial CT slice: .*{reason}")
    write_series(tmp_path)
    with open_volume(tmp_path) as volume:
        assert volume.count == len(stored())
    out = capsys.readouterr().out
    assert out.startswith(f"skipped: {tmp_path}/other: ") and reason in out


def test_a_folder_of_patients_leaves_out_localizers(tmp_path, capsys):
    patients = tmp_path / "patients"
    for name in ("scan", "scout", "report"):
        (patients / name).mkdir(parents=True)
    write_series(patients / "scan")
    write_series(patients / "scout", array=stored()[:1])
    edit((patients / "scout").iterdir(), **LOCALIZER)
    write_without_image(patients / "report/SR", XRayRadiationDoseSRStorage)
    (task,) = plan_outputs(patients, tmp_path / "out")
    assert task.source == patients / "scan"
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["report (SR)", "localizer"]


def test_codecs_print_nothing_about_a_damaged_file(tmp_path, capfd):
    """OpenJPEG, in GDCM, prints "Expected a SOC marker"."""
    write_series(tmp_path, array=stored()[:1])
    (file,) = tmp_path.iterdir()
    d = pydicom.dcmread(file)
    d.file_meta.TransferSyntaxUID = JPEG2000Lossless
    d.PixelData = pydicom.encaps.encapsulate([bytes(50)])
    d["PixelData"].is_undefined_length = True
    d.save_as(file)
    refused(file, "is damaged: it cannot be read as DICOM")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError):
        reader.Execute()
    assert "SOC marker" in capfd.readouterr().err  # so the test looks for what there is
