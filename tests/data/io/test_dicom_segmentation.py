"""DICOM segmentations, read back by highdicom and pydicom."""

import importlib.metadata

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, CORONAL, TILTED, edit, write_enhanced, write_series
from pydicom.uid import generate_uid

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.segments import LEFT_LUNG, LUNG, RIGHT_LUNG
from lungseg_jax.data.io.volume_writer import open_mask
from lungseg_jax.runtime.errors import UserError

SIDES = RIGHT_LUNG, LEFT_LUNG
COMMON = "PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"


@pytest.fixture
def series(tmp_path):
    """`make(axes, distance)` writes a series with a frame of reference."""

    def make(axes=AXIAL, distance=2.5):
        write_series(tmp_path / "in", axes, distance)
        edit((tmp_path / "in").iterdir(), FrameOfReferenceUID=generate_uid())
        return tmp_path / "in"

    return make


def write(source, target, segments, labels_of):
    """Write labels of each slice, `labels_of(image)`."""
    with open_volume(source) as volume:
        with open_mask(target, volume, segments) as writer:
            for k, image in enumerate(volume.slices()):
                writer.write(k, labels_of(image))
    return hd.seg.segread(target)


def thirds(image):
    """Label the values of `dicom_files.stored` 1, 2 and 0, differently in each slice."""
    return (image.astype(int) // 7 % 3).astype(np.uint8)


def by_instance(segmentation, files, number):
    """Return the plane of a segment on each source file, `[n h w]`."""
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    return segmentation.get_pixels_by_source_instance(
        uids, segment_numbers=[number], assert_missing_frames_are_empty=True
    )[..., 0]


@pytest.mark.parametrize("distance", [2.5, -2.5])
@pytest.mark.parametrize("axes", [AXIAL, TILTED, CORONAL])
def test_frames_are_those_of_the_source_files(axes, distance, series, tmp_path):
    source = series(axes, distance)
    segmentation = write(source, tmp_path / "out.seg.dcm", SIDES, thirds)
    files = sorted(source.iterdir())
    expected = np.stack([thirds(pydicom.dcmread(f).pixel_array - 1024) for f in files])
    for segment in SIDES:
        frames = by_instance(segmentation, files, segment.value)
        np.testing.assert_array_equal(frames, expected == segment.value)


@pytest.mark.parametrize("axes", [AXIAL, CORONAL])
def test_frames_are_those_of_a_source_of_several_frames(axes, tmp_path):
    source = write_enhanced(tmp_path / "in", axes)
    segmentation = write(source, tmp_path / "out.seg.dcm", SIDES, thirds)
    image = pydicom.dcmread(source)
    expected = thirds(image.pixel_array - 1024)
    numbers = range(1, len(expected) + 1)
    for segment in SIDES:
        frames = segmentation.get_pixels_by_source_frame(
            image.SOPInstanceUID,
            numbers,
            segment_numbers=[segment.value],
            assert_missing_frames_are_empty=True,
        )[..., 0]
        np.testing.assert_array_equal(frames, expected == segment.value)
    with open_volume(source) as volume:
        geometry = volume.geometry
    read = segmentation.get_volume(combine_segments=True)
    np.testing.assert_allclose(sorted(read.spacing), sorted(geometry.spacing))


@pytest.mark.parametrize("thickness", [4.0, None])
def test_frames_may_have_groups_of_their_own(thickness, tmp_path):
    """highdicom expects spacing, thickness and orientation in the shared groups."""
    source = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(source)
    shared = d.SharedFunctionalGroupsSequence[0]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        for group in d.PerFrameFunctionalGroupsSequence:
            if name in shared:
                setattr(group, name, shared[name].value)
            for item in group[name].value:
                if "SliceThickness" in item:
                    item.SliceThickness = thickness
        shared.pop(name, None)
    d.save_as(source)
    segmentation = write(source, tmp_path / "out.seg.dcm", SIDES, thirds)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.PixelSpacing == [0.6, 0.75]
    assert measures.SliceThickness == (thickness or 2.5)
    with open_volume(source) as volume:
        spacing = volume.geometry.spacing
    read = segmentation.get_volume(combine_segments=True)
    np.testing.assert_allclose(sorted(read.spacing), sorted(spacing))


def test_refuses_several_sources_of_several_frames(tmp_path):
    source = write_enhanced(tmp_path / "in")
    d = pydicom.dcmread(source)
    half = len(d.PerFrameFunctionalGroupsSequence) // 2
    groups, pixels = d.PerFrameFunctionalGroupsSequence, d.pixel_array
    (tmp_path / "halves").mkdir()
    for name, part in (("a", slice(half)), ("b", slice(half, None))):
        d.PerFrameFunctionalGroupsSequence = groups[part]
        d.NumberOfFrames, d.PixelData = len(groups[part]), pixels[part].tobytes()
        d.SOPInstanceUID = hd.UID()
        d.save_as(tmp_path / "halves" / name)
    with open_volume(tmp_path / "halves") as volume:
        assert volume.count == len(pixels)
        with pytest.raises(UserError, match="several files of several frames"):
            open_mask(tmp_path / "out.dcm", volume, SIDES)


def test_the_geometry_is_that_of_the_source(series, tmp_path):
    source = series()
    segmentation = write(source, tmp_path / "out.dcm", SIDES, thirds)
    with open_volume(source) as volume:
        geometry = volume.geometry
    read = segmentation.get_volume(combine_segments=True)
    placed = np.eye(4)
    placed[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    placed[:3, 3] = geometry.origin
    zyx_to_xyz = np.eye(4)[[2, 1, 0, 3]]
    upright = read.to_patient_orientation("HPL").affine
    np.testing.assert_allclose(upright, placed @ zyx_to_xyz, atol=1e-4)


@pytest.mark.parametrize("is_empty", [True, False])
def test_slices_without_a_thickness_get_their_distance(is_empty, series, tmp_path):
    source = series()
    for file in source.iterdir():
        d = pydicom.dcmread(file)
        d.SliceThickness = None
        if not is_empty:
            del d.SliceThickness
        d.save_as(file)
    segmentation = write(source, tmp_path / "out.dcm", (LUNG,), lambda i: (i > 0) * 1)
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    assert shared.PixelMeasuresSequence[0].SliceThickness == 2.5


def test_belongs_to_the_patient_the_study_and_the_frame_of_reference(series, tmp_path):
    source = series()
    write(source, tmp_path / "out.dcm", SIDES, thirds)
    read = pydicom.dcmread(tmp_path / "out.dcm")
    first = pydicom.dcmread(sorted(source.iterdir())[0])
    for element in COMMON:
        assert read[element].value == first[element].value
    assert read.SOPClassUID == pydicom.uid.SegmentationStorage
    assert read.SeriesInstanceUID != first.SeriesInstanceUID
    (referenced,) = read.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    instances = {
        i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence
    }
    assert instances == {pydicom.dcmread(f).SOPInstanceUID for f in source.iterdir()}


@pytest.mark.parametrize(
    "character_set,name",
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 100", "Müller^Änne"),
    ],
)
def test_repeats_names_in_any_character_set(character_set, name, series, tmp_path):
    source = series()
    edit(source.iterdir(), SpecificCharacterSet=character_set, PatientName=name)
    write(source, tmp_path / "out.dcm", (LUNG,), lambda image: (image > 0) * 1)
    assert pydicom.dcmread(tmp_path / "out.dcm").PatientName == name


@pytest.mark.parametrize(
    "segments,described",
    [
        ((LUNG,), [("Lung", "39607008")]),
        (SIDES, [("Right lung", "3341006"), ("Left lung", "44029006")]),
    ],
)
def test_says_what_its_segments_are_and_who_made_them(
    segments, described, series, tmp_path
):
    written = write(series(), tmp_path / "o.dcm", segments, lambda i: (i > 0) * 1)
    assert written.number_of_segments == len(described)
    tracked = set()
    for number, (label, code) in enumerate(described, 1):
        segment = written.get_segment_description(number)
        assert segment.segment_label == segment.tracking_id == label
        kind = segment.segmented_property_type
        assert (kind.value, kind.scheme_designator) == (code, "SCT")
        assert segment.segmented_property_category.value == "123037004"
        assert segment.algorithm_type.value == "AUTOMATIC"
        algorithm = segment.algorithm_identification
        assert algorithm.name == "lungseg_jax"
        assert algorithm.version == importlib.metadata.version("lungseg_jax")
        tracked.add(segment.tracking_uid)
    assert len(tracked) == len(described)


def test_writes_a_mask_without_lung(series, tmp_path, caplog):
    source = series()
    segmentation = write(source, tmp_path / "o.dcm", (LUNG,), np.zeros_like)
    assert not by_instance(segmentation, sorted(source.iterdir()), 1).any()
    assert not caplog.records


@pytest.mark.parametrize(
    "elements,message",
    [
        ({"FrameOfReferenceUID": ""}, "it has no FrameOfReferenceUID"),
        ({"StudyInstanceUID": ""}, "it has no StudyInstanceUID"),
        ({"PatientSex": "X"}, "PatientSex"),
    ],
)
def test_refuses_an_unsuitable_source_before_anything_is_written(
    elements, message, series, tmp_path
):
    source = series()
    edit(source.iterdir(), **elements)
    with open_volume(source) as volume, pytest.raises(UserError, match=message) as e:
        open_mask(tmp_path / "out.dcm", volume, (LUNG,))
    assert ".nii.gz" in e.value.remedy


def test_takes_an_identity_that_only_the_file_states(series, tmp_path):
    source = series()
    files = sorted(source.iterdir())
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    for file in files:
        d = pydicom.dcmread(file)
        d.SOPInstanceUID = d.SOPClassUID = ""
        d.save_as(file)
    segmentation = write(source, tmp_path / "o.dcm", SIDES, thirds)
    frames = segmentation.get_pixels_by_source_instance(uids, segment_numbers=[1])
    assert frames.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("is_finished", [False, True])
def test_an_interrupted_mask_leaves_no_file(is_finished, series, tmp_path):
    with open_volume(series()) as volume, pytest.raises(KeyError):
        with open_mask(tmp_path / "out.dcm", volume, (LUNG,)) as writer:
            if is_finished:
                writer.finish()
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
