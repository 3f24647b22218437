"""DICOM Segmentation objects, through highdicom: masks that PACS and viewers know.

Reference: DICOM PS3.3, A.51.
"""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import lungseg_jax
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.segments import ANATOMY, Segment
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_write

NAME = "lungseg_jax"
SERIES_NUMBER = 1000  # above those of scanners
_REQUIRED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
_REQUIRED += ("FrameOfReferenceUID",)
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_MAY_BE_EMPTY += ("AccessionNumber", "StudyID", "StudyDate", "StudyTime")


class DicomSegmentationWriter:
    """A context manager like `VolumeWriter`; the file appears at its end.

    The object belongs to the patient, the study and the frame of reference of the source,
    and each of its frames refers to a file of the source, or to a frame of its file. Slices
    without a segment have no frame. Memory holds the mask.

    Args:
      path: the file; it replaces an existing one.
      like: a volume of a DICOM series.
      segments: their values are 1, 2, ...

    Raises:
      UserError: the source lacks what such an object must repeat, or is not valid.
    """

    def __init__(self, path: Path, like: Volume, segments: Sequence[Segment]):
        self._path, self._like, self._segments = path, like, segments
        files = dict.fromkeys(file for file, _ in like.sources)
        self._sources = [_read_source(file, path, like.geometry) for file in files]
        if len(files) > 1 and any("NumberOfFrames" in d for d in self._sources):
            raise UserError(
                f"{path} cannot be a DICOM segmentation of {like.name}, which has several "
                "files of several frames.",
                rule="a source of single slices, or one file of Enhanced CT.",
                remedy="name another format, such as .nii.gz.",
            )
        # highdicom takes the planes of one file in the order of its frames.
        numbers = [number for _, number in like.sources]
        self._order = (
            np.argsort(numbers, kind="stable") if len(files) == 1 else slice(None)
        )
        columns, rows, planes = like.geometry.size
        example = np.zeros((planes if len(files) == 1 else 1, rows, columns), np.uint8)
        example[0] = 1
        self._build(self._sources[:1], example)

    def __enter__(self) -> "DicomSegmentationWriter":
        self._labels = np.zeros(self._like.geometry.size[::-1], np.uint8)
        self._complete: contextlib.ExitStack | None = None
        return self

    def write(self, k: int, image: np.ndarray) -> None:
        """Write slice `k` `[h w]`, given in the standard orientation."""
        geometry = self._like.geometry
        self._labels[geometry.index(k)] = geometry.from_standard(image)

    def finish(self) -> None:
        """Complete the file under a temporary name, as `VolumeWriter` does.

        Raises:
          UserError: the file cannot be written, or the source is not valid.
        """
        segmentation = self._build(self._sources, self._labels[self._order])
        with contextlib.ExitStack() as stack:
            segmentation.save_as(stack.enter_context(atomic_write(self._path)))
            self._complete = stack.pop_all()  # at its end, the file is renamed

    def __exit__(self, *exception) -> None:
        if exception[0] is None and self._complete is None:
            self.finish()
        if self._complete is not None:
            self._complete.__exit__(*exception)

    def _build(
        self, sources: Sequence[pydicom.Dataset], labels: np.ndarray
    ) -> hd.seg.Segmentation:
        algorithm = hd.AlgorithmIdentificationSequence(
            NAME, codes.cid7162.ArtificialIntelligence, lungseg_jax.__version__
        )
        try:
            with warnings.catch_warnings(action="ignore"):  # of values that it copies
                return hd.seg.Segmentation(
                    sources,
                    labels,
                    hd.seg.SegmentationTypeValues.BINARY,
                    [_describe(segment, algorithm) for segment in self._segments],
                    series_instance_uid=hd.UID(),
                    series_number=SERIES_NUMBER,
                    sop_instance_uid=hd.UID(),
                    instance_number=1,
                    manufacturer=NAME,
                    manufacturer_model_name=NAME,
                    software_versions=lungseg_jax.__version__,
                    device_serial_number="none",
                    series_description="Lung segmentation",
                    content_label="LUNGS",
                    omit_empty_frames=bool(labels.any()),  # it needs one
                )
        except (ValueError, TypeError, AttributeError, KeyError) as e:
            raise _unsuitable(self._like.name, self._path, str(e)) from e


def _read_source(file: Path, target: Path, geometry: Geometry) -> pydicom.Dataset:
    """Read what a segmentation repeats of a slice; the pixels are left out.

    A slice without a thickness gets the distance of the slices.
    """
    with warnings.catch_warnings(action="ignore"):
        source = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        source.decode()
    # highdicom refuses code extensions after an empty value, as in names of Japan.
    source.SpecificCharacterSet = "ISO_IR 192"  # UTF-8
    # Some anonymizers leave these only here.
    for element in ("SOPInstanceUID", "SOPClassUID"):
        if not source.get(element):
            setattr(source, element, source.file_meta.get(f"MediaStorage{element}"))
    for element in _REQUIRED:
        if not source.get(element):
            raise _unsuitable(file, target, f"it has no {element}.")
    for element in _MAY_BE_EMPTY:
        if element not in source:
            setattr(source, element, "")
    if not source.get("SliceThickness"):
        source.SliceThickness = round(geometry.spacing[2], 6)
    if "PerFrameFunctionalGroupsSequence" in source:
        _share_groups(source, geometry)
    return source


def _share_groups(source: pydicom.Dataset, geometry: Geometry) -> None:
    """Give all frames of a source one spacing, thickness and orientation, as they have.

    highdicom expects these in the shared groups, where a file need not have them.
    """
    own = source.PerFrameFunctionalGroupsSequence
    shared = source.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    groups = [group for part in (own, shared) for group in part]
    stated = [item for g in groups for item in g.get("PixelMeasuresSequence") or ()]
    thickness = [item.SliceThickness for item in stated if item.get("SliceThickness")]
    columns, rows, distance = (round(mm, 6) for mm in geometry.spacing)
    measures, orientation = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [rows, columns]
    measures.SliceThickness = [*thickness, distance][0]
    axes = np.reshape(geometry.direction, (3, 3)).T[:2].ravel()
    orientation.ImageOrientationPatient = [round(x, 9) for x in axes.tolist()]
    for group in own:
        group.pop("PixelMeasuresSequence", None)
        group.pop("PlaneOrientationSequence", None)
    shared[0].PixelMeasuresSequence = [measures]
    shared[0].PlaneOrientationSequence = [orientation]
    source.SharedFunctionalGroupsSequence = list(shared)


def _describe(segment: Segment, algorithm) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=segment.value,
        segment_label=segment.name,
        segmented_property_category=Code(ANATOMY[0], "SCT", ANATOMY[1]),
        segmented_property_type=Code(segment.code, "SCT", segment.name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=segment.name,
        display_color=hd.color.CIELabColor.from_rgb(*segment.color),
    )


def _unsuitable(source: Path | str, target: Path, why: str) -> UserError:
    return UserError(
        f"{target} cannot be a DICOM segmentation of {source}: {why}",
        rule="it repeats the patient, the study and the frame of reference of its source.",
        remedy="export the series again, or name another format, such as .nii.gz.",
    )
