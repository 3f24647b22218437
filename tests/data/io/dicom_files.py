"""DICOM files for tests."""

import warnings

import highdicom as hd
import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE, SPACING = (6, 9, 8), (0.6, 0.75)  # slices rows columns; rows, columns in mm
AXIAL = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float)  # rows, columns, normal
TILTED = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]], float)
CORONAL = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float)


def stored():
    """Values as CT files store them, 1024 above Hounsfield units."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16) + 700


def write_series(
    folder, axes=AXIAL, distance=2.5, uid=None, array=None, description="lung", skip=()
):
    """Write a file for each slice, with names in a different order than the slices."""
    folder.mkdir(exist_ok=True)
    array = stored() if array is None else array
    uid = uid or generate_uid()
    study = generate_uid(entropy_srcs=[uid])  # a series is of one study
    names = np.random.default_rng(0).permutation(len(array))
    for k, image in enumerate(array):
        if k in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        d.SOPClassUID, d.SOPInstanceUID = (
            CTImageStorage,
            meta.MediaStorageSOPInstanceUID,
        )
        d.Modality, d.SeriesInstanceUID, d.StudyInstanceUID = "CT", uid, study
        d.SeriesDescription, d.InstanceNumber = description, k + 1
        d.PatientName, d.PatientID = "No^One", "0"
        d.Rows, d.Columns = image.shape
        d.PixelSpacing = list(SPACING)
        d.SliceThickness = 1.0  # not the distance
        d.ImageOrientationPatient = [*axes[0], *axes[1]]
        position = np.array([-10.0, 20.0, 5.0]) + k * distance * axes[2]
        d.ImagePositionPatient = [float(f"{x:.6f}") for x in position]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
        d.PixelRepresentation = 1
        d.RescaleIntercept, d.RescaleSlope = -1024, 1
        d.PixelData = image.tobytes()
        d.save_as(folder / f"IM{names[k]:04}", enforce_file_format=True)
    return uid


def edit(files, **elements):
    """Set elements of files."""
    for file in files:
        d = pydicom.dcmread(file)
        for name, value in elements.items():
            setattr(d, name, value)
            if name == "SOPClassUID":
                d.file_meta.MediaStorageSOPClassUID = value
        d.save_as(file)


def write_without_image(file, storage_class):
    """Write a DICOM file that is not an image."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    d.SeriesInstanceUID = generate_uid()
    d.save_as(file, enforce_file_format=True)


def write_enhanced(folder, axes=AXIAL, distance=2.5):
    """Write a series as one file, whose frames are in another order than its slices.

    The series is in the folder, and the file beside it.
    """
    write_series(folder, axes, distance)
    edit(folder.iterdir(), FrameOfReferenceUID=generate_uid())
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    with warnings.catch_warnings(action="ignore"):
        image = LegacyConvertedEnhancedCTImage(
            slices,
            series_instance_uid=hd.UID(),
            series_number=1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
        )
    file = folder.with_suffix(".dcm")
    _shuffle(image, np.random.default_rng(1).permutation(len(slices)))
    image.save_as(file)
    return file


def _shuffle(image, order):
    """Bring the frames of an image into another order."""
    groups = image.PerFrameFunctionalGroupsSequence
    image.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    image.PixelData = image.pixel_array[order].tobytes()
