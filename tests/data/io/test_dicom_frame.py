"""Enhanced CT: the frames of one DICOM file as the slices of a volume."""

import io
import tempfile

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, CORONAL, TILTED, edit, stored, write_enhanced
from PIL import Image
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)
from volume_files import refused

from lungseg_jax.data.io.formats import open_volume


def change_frame(file, sequence, name, value, k=2):
    """Set an element of the functional groups of one frame."""
    d = pydicom.dcmread(file)
    item = pydicom.Dataset()
    setattr(item, name, value)
    setattr(d.PerFrameFunctionalGroupsSequence[k], sequence, [item])
    d.save_as(file)


@pytest.mark.parametrize("distance", [2.5, -2.5])
@pytest.mark.parametrize("axes", [AXIAL, TILTED, CORONAL])
def test_frames_are_the_volume_of_their_series(axes, distance, tmp_path):
    file = write_enhanced(tmp_path / "in", axes, distance)
    with open_volume(tmp_path / "in") as series, open_volume(file) as volume:
        assert volume.geometry.is_close_to(series.geometry)
        np.testing.assert_array_equal(list(volume.slices()), list(series.slices()))


def test_reads_a_file_in_its_folder_and_the_class_of_scanners(tmp_path):
    file = write_enhanced(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    file.rename(tmp_path / "in/scan")
    edit([tmp_path / "in/scan"], SOPClassUID=EnhancedCTImageStorage)
    with open_volume(tmp_path / "in") as volume:
        np.testing.assert_array_equal(list(volume.slices()), stored() - 1024.0)


def test_frames_have_their_own_rescaling(tmp_path):
    """GDCM would rescale all of them as the first."""
    file = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(file)
    d.PixelData = np.ones(stored().shape, np.int16).tobytes()
    for shared in d.SharedFunctionalGroupsSequence:
        shared.pop("PixelValueTransformationSequence", None)
    groups = d.PerFrameFunctionalGroupsSequence
    for group in groups:
        height = group.PlanePositionSequence[0].ImagePositionPatient[2]
        k = round((height - 5) / 2.5)
        item = pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept = k + 1, -1024
        group.PixelValueTransformationSequence = [item]
    d.save_as(file)
    with open_volume(file) as volume:
        for k, image in enumerate(volume.slices()):
            np.testing.assert_array_equal(image, np.full((9, 8), k + 1 - 1024.0))


def compress(file, frames, syntax):
    """Replace the pixels of a file by compressed frames."""
    d = pydicom.dcmread(file)
    d.PixelData = pydicom.encaps.encapsulate(list(frames))
    d["PixelData"].is_undefined_length = True
    d.file_meta.TransferSyntaxUID = syntax
    d.save_as(file)


def jpeg2000(pixels):
    """Pillow encodes it, and pydicom does not."""
    out = io.BytesIO()
    image = Image.fromarray(pixels.astype(np.uint16))
    image.save(out, "JPEG2000", irreversible=False, no_jp2=True)
    return out.getvalue()


def jpeg_lossless(pixels):
    """GDCM encodes it."""
    with tempfile.TemporaryDirectory() as folder:
        file, writer = f"{folder}/slice.dcm", sitk.ImageFileWriter()
        writer.SetFileName(file)
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(pixels[None]))
        d = pydicom.dcmread(file)
    assert d.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return pydicom.encaps.get_frame(d.PixelData, 0, number_of_frames=1)


def test_reads_compressed_frames(tmp_path):
    file = write_enhanced(tmp_path / "in")
    pixels = pydicom.dcmread(file).pixel_array
    compress(file, map(jpeg2000, pixels), JPEG2000Lossless)
    with open_volume(file) as volume:
        np.testing.assert_array_equal(list(volume.slices()), stored() - 1024.0)
    d = pydicom.dcmread(file)
    d.decompress()
    d.compress(RLELossless)
    d.save_as(file)
    with open_volume(file) as volume:
        np.testing.assert_array_equal(list(volume.slices()), stored() - 1024.0)


def test_names_a_compression_that_is_not_decoded(tmp_path):
    file = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(file)
    d.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    d.save_as(tmp_path / "deflated")
    message = "(?s)unsupported way: .* is {}.*decompress it"
    refused(tmp_path / "deflated", message.format(DeflatedExplicitVRLittleEndian))
    compress(file, map(jpeg_lossless, d.pixel_array), JPEGLosslessSV1)
    refused(file, message.format(JPEGLosslessSV1))


@pytest.mark.parametrize(
    "sequence,name,value,message",
    [
        ("PlanePositionSequence", "ImagePositionPatient", [0, 0], "invalid position"),
        (
            "PlanePositionSequence",
            "ImagePositionPatient",
            None,
            "not state its position",
        ),
        ("PlanePositionSequence", "ImagePositionPatient", [-10, 20, 5], "(have|are)"),
        (
            "PlaneOrientationSequence",
            "ImageOrientationPatient",
            [2, 0, 0, 0, 1, 0],
            "invalid orientation",
        ),
        ("PixelMeasuresSequence", "PixelSpacing", [0, 0.75], "invalid pixel spacing"),
        ("PixelMeasuresSequence", "PixelSpacing", [0.5, 0.75], "different sizes"),
        (
            "PixelValueTransformationSequence",
            "RescaleSlope",
            0,
            "invalid Rescale Slope",
        ),
    ],
)
def test_names_a_frame_that_cannot_be_used(sequence, name, value, message, tmp_path):
    file = write_enhanced(tmp_path / "in")
    change_frame(file, sequence, name, value)
    refused(file, rf"frame \d of {file}.* {message}")


def test_refuses_two_frames_at_one_position(tmp_path):
    """They are of two phases, say."""
    file = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(file)
    d.PerFrameFunctionalGroupsSequence[1] = d.PerFrameFunctionalGroupsSequence[0]
    d.save_as(file)
    refused(file, "(?s)have the same position.*fix: .*dcm2niix")


def test_refuses_damaged_files(tmp_path):
    file = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(file)
    d.PixelData = d.PixelData[:-100]
    d.save_as(file)
    refused(file, "in.dcm is damaged: it has 764 of 864 bytes of pixels")
    d.Rows -= 1
    d.save_as(file)
    refused(file, "in.dcm is damaged: it has 764 of 768 bytes of pixels")
    d.PixelData += bytes(100)
    d.save_as(file)  # rows would be sheared
    refused(file, "in.dcm is damaged: it has 864 of 768 bytes of pixels")
    del d.PerFrameFunctionalGroupsSequence[0]
    d.save_as(file)
    refused(file, "in.dcm is damaged: it describes 5 of 6 frames")


def test_names_pixels_that_cannot_be_decoded(tmp_path):
    file = write_enhanced(tmp_path / "in")
    frames = [b"\xff\x4f\xff\x51" + bytes(50)] * len(stored())
    compress(file, map(jpeg2000, pydicom.dcmread(file).pixel_array), JPEG2000Lossless)
    d = pydicom.dcmread(file)
    first = pydicom.encaps.get_frame(d.PixelData, 0, number_of_frames=len(frames))
    compress(file, [first, *frames[1:]], JPEG2000Lossless)  # GDCM reads the first
    refused(file, "in.dcm is damaged: its pixels cannot be decoded")


def test_rescaling_may_be_where_single_slices_have_it(tmp_path):
    file = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(file)
    for group in (
        *d.SharedFunctionalGroupsSequence,
        *d.PerFrameFunctionalGroupsSequence,
    ):
        group.pop("PixelValueTransformationSequence", None)
    d.RescaleSlope, d.RescaleIntercept = 0.5, -1000
    d.save_as(file)
    with open_volume(file) as volume:
        np.testing.assert_array_equal(list(volume.slices()), 0.5 * stored() - 1000)


def test_reads_frames_without_a_preamble(tmp_path):
    file = write_enhanced(tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    (tmp_path / "in/scan.dcm").write_bytes(file.read_bytes()[132:])
    (tmp_path / "in/other.dcm").write_bytes(file.read_bytes())
    edit([tmp_path / "in/other.dcm"], SeriesInstanceUID=hd.UID())
    with open_volume(
        tmp_path / "in", series=pydicom.dcmread(file).SeriesInstanceUID
    ) as volume:
        assert volume.count == len(stored())


def test_other_files_of_several_frames_are_not_scans(tmp_path):
    file = write_enhanced(tmp_path / "in")
    edit([file], SOPClassUID=CTImageStorage)
    refused(file, "has 6 frames")
    edit([file], SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    refused(file, "secondary capture")
