"""DICOM files with one slice: what is read, and what GDCM would misread."""

import re

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import TILTED, edit, stored, write_series
from pydicom.uid import (
    HTJ2K,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from volume_files import refused

from lungseg_jax.data.io.dicom_files import is_dicom
from lungseg_jax.data.io.formats import open_volume


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
        m.setattr("lungseg_jax.data.io.dicom_pixels._MAX_INFLATED", 100)
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


@pytest.mark.parametrize(
    "change,message",
    [
        ({"NumberOfFrames": 2}, "has 2 frames"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "is MONOCHROME1"),
        ({"BitsStored": 12}, "a High Bit .* of 15 with 12 Bits Stored"),
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


def test_names_a_damaged_file(tmp_path):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]
    file.write_bytes(file.read_bytes()[:200])
    refused(tmp_path / "in", file.name)
    write_series(tmp_path / "in")
    file.write_bytes(file.read_bytes()[:-60])
    refused(tmp_path / "in", file.name)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, MPEG2MPML])
def test_a_compression_that_is_not_decoded_is_not_damage(syntax, tmp_path):
    write_series(tmp_path, array=stored()[:1])
    (file,) = tmp_path.iterdir()
    d = pydicom.dcmread(file)
    d.file_meta.TransferSyntaxUID = syntax
    d.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(50)])
    d["PixelData"].is_undefined_length = True
    d.save_as(file)
    refused(file, f"(?s)unsupported way: .* is {syntax}.*decompress it with pydicom")


def test_reads_a_slice_without_a_preamble(tmp_path):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]
    file.write_bytes(file.read_bytes()[132:])
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())


def test_refuses_colour(tmp_path):
    write_series(tmp_path / "in", array=stored()[:1])
    (file,) = (tmp_path / "in").iterdir()
    d = pydicom.dcmread(file)
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
    d.PixelData = bytes(3 * d.Rows * d.Columns)
    d.save_as(file)
    refused(file, "(?s)3 values per pixel.*fix: .*in gray")


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


@pytest.mark.parametrize(
    "tag,name,text",
    [
        *(("28005310", "Slope", text) for text in ("0", "0.0", "nan", "inf", "wide")),
        *(("28005210", "Intercept", text) for text in ("- 1024", "nan", "inf", "low")),
    ],
)
def test_refuses_an_invalid_rescaling(tag, name, text, tmp_path):
    """GDCM would take a slope of 1 or an intercept of 0."""
    write_series(tmp_path / "in")
    file = tmp_path / "in/IM0003"
    replace_text(file, bytes.fromhex(tag) + b"DS", text)
    message = rf"IM0003 states an invalid Rescale {name} \(0028,105\d\): {text}\."
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
