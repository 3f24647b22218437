"""Files of every kind get the segmenter's masks, in the geometry of the input."""

import csv
import dataclasses
import itertools

import cv2
import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (  # of tests/data/io/
    AXIAL,
    SPACING,
    edit,
    write_enhanced,
    write_series,
)
from pydicom.uid import generate_uid

from lungseg_jax.data.io.images import write_image
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.contact_sheet import TILE
from lungseg_jax.inference.measured_rows import slice_row
from lungseg_jax.inference.outputs import MAPS
from lungseg_jax.inference.overlay import overlay
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.inference.predict_files import predict_files
from lungseg_jax.inference.prediction_rows import COLUMNS
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.review import MEMBERS, NEIGHBORS, UNCERTAIN
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.inference.sides import LEFT, RIGHT, label_sides
from lungseg_jax.inference.volume_cleanup import clean_volume, mark_air
from lungseg_jax.runtime.errors import UserError


def predict(
    segmenter, source, target, *, table=None, cleanup=False, labels="lung", **options
):
    tasks = plan_outputs(source, target, **options)
    limit = segmenter.settings.review_below
    with PredictionTable(table, review_below=limit) as predictions:
        predict_files(
            segmenter, tasks, predictions, volume_cleanup=cleanup, labels=labels
        )
    return predictions


def row_of(segmentation):
    """Return the arguments of `slice_row` that a segmentation determines."""
    return segmentation.mask, Confidence.of(segmentation)


def test_segments_a_folder_of_slices(segmenter, images, tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "in" / f"s{i}.tif", image)
    np.save(tmp_path / "in" / "t.npy", images[0])
    options = {"maps": list(MAPS), "overlay": True}
    predict(segmenter, tmp_path / "in", tmp_path / "out", **options)
    for i, image in enumerate(images):
        expected = segmenter(image)
        mask = cv2.imread(str(tmp_path / f"out/s{i}.tif"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
        for name in MAPS:
            path = tmp_path / f"out/s{i}_{name}.tif"
            values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            np.testing.assert_allclose(values, getattr(expected, name), atol=1e-5)
        picture = cv2.imread(str(tmp_path / f"out/s{i}_overlay.png"))
        assert picture.shape == (*image.shape, 3)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/t.npy"), segmenter(images[0]).mask * np.uint8(255)
    )


@pytest.mark.parametrize("domain", ["HU", "unknown"])
def test_the_page_shows_densities_only_for_hounsfield_units(
    segmenter, images, domain, tmp_path
):
    trained = dataclasses.replace(segmenter.trained, domain=domain)
    sitk.WriteImage(sitk.GetImageFromArray(images), str(tmp_path / "in.nrrd"))
    tasks = plan_outputs(tmp_path / "in.nrrd", tmp_path / "out.nrrd", overlay=True)
    views = []
    with PredictionTable(None) as table:
        predict_files(
            LungSegmenter(trained),
            tasks,
            table,
            write_page=lambda path, view: views.append(view),
        )
    assert [view.density is not None for view in views] == [domain == "HU"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_segments_a_volume_in_its_own_orientation(segmenter, images, suffix, tmp_path):
    """Slices stored head first and front last are flipped for the network, and back."""
    flipped = images[::-1, ::-1]
    volume = sitk.GetImageFromArray(np.ascontiguousarray(flipped))
    volume.SetSpacing((0.8, 0.8, 2.5))
    volume.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    sitk.WriteImage(volume, str(source))
    table = tmp_path / "t.csv"
    options = {"maps": list(MAPS), "overlay": True, "table": table}
    predictions = predict(segmenter, source, target, **options)
    expected = segmenter(images)
    mask = sitk.ReadImage(str(target))
    assert mask.GetDirection() == volume.GetDirection()
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask)[::-1, ::-1], expected.mask.astype(np.uint8)
    )
    for name in MAPS:
        image = sitk.ReadImage(str(tmp_path / f"out_{name}{suffix}"))
        values = sitk.GetArrayFromImage(image)[::-1, ::-1]
        np.testing.assert_allclose(values, getattr(expected, name), atol=1e-5)
    height, *width = cv2.imread(str(tmp_path / "out_overlay.png")).shape
    assert 2 * TILE < height < 4 * TILE and width == [3 * TILE, 3]  # slices, low planes

    rows = list(csv.DictReader(table.open()))
    assert [row["slice"] for row in rows] == ["0", "1", "2", "3", "4", "all"]
    inside = images[expected.mask]
    assert float(rows[-1]["mean_hu"]) == pytest.approx(inside.mean(), rel=1e-4)
    millilitres = inside.size * 0.8 * 0.8 * 2.5 / 1000
    assert float(rows[-1]["volume_ml"]) == pytest.approx(millilitres, rel=1e-4)
    for k in range(5):
        assert float(rows[k]["area_px"]) == expected.mask[k].sum()
        assert float(rows[k]["area_mm2"]) == pytest.approx(
            expected.mask[k].sum() * 0.8 * 0.8, rel=1e-4
        )
        assert float(rows[k]["expected_iou"]) == pytest.approx(
            expected.expected_iou[k], abs=1e-4
        )
        reasons = set(filter(None, rows[k]["reasons"].split("; ")))
        assert rows[k]["review"] == str(int(bool(reasons)))
        assert bool(reasons & {UNCERTAIN, MEMBERS}) == expected.review[k]
    flagged = sum(row["review"] == "1" for row in rows[:-1])
    summary = predictions.summary()
    assert f"{flagged} of 5 slices to review" in summary
    assert "(expected IoU below 0.600)" in summary
    assert " ml (right " in summary and "), mean " in summary
    both = [float(rows[-1][name]) for name in ("right_ml", "left_ml")]
    sides = label_sides(expected.mask.astype(np.uint8))
    voxels = [(sides == side).sum() for side in (RIGHT, LEFT)]
    assert voxels[0] != voxels[1] and sum(voxels) == inside.size
    assert both == pytest.approx([n * 0.8 * 0.8 * 2.5 / 1000 for n in voxels], rel=1e-3)


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_labels_the_sides_of_the_patient(segmenter, images, signs, tmp_path):
    """However the file is oriented: the axes of ITK point to left, posterior, superior."""
    x, y, z = signs
    volume = sitk.GetImageFromArray(np.ascontiguousarray(images[::z, ::y, ::x]))
    volume.SetDirection((x, 0, 0, 0, y, 0, 0, 0, z))
    sitk.WriteImage(volume, str(tmp_path / "in.nrrd"))
    source, target = tmp_path / "in.nrrd", tmp_path / "out.nrrd"
    predict(segmenter, source, target, labels="sides")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(target)))[::z, ::y, ::x]
    expected = label_sides(segmenter(images).mask.astype(np.uint8))
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    "axes, to_stored",
    [
        (AXIAL * np.array([[-1], [-1], [1]]), lambda image: image[::-1, ::-1]),  # prone
        (AXIAL[[1, 0, 2]] * np.array([[1], [1], [-1]]), np.transpose),
    ],
)
def test_the_mask_of_a_dicom_slice_fits_its_pixels(
    axes, to_stored, segmenter, images, tmp_path
):
    image = images[0]
    write_series(tmp_path / "in", axes, array=to_stored(image)[None] + np.int16(1024))
    (file,) = (tmp_path / "in").iterdir()
    options = {"maps": list(MAPS), "overlay": True}
    predict(segmenter, file, tmp_path / "out.png", **options)
    # Rows and columns of the file are those of the slice, or the other way round.
    high, wide = SPACING if to_stored is not np.transpose else SPACING[::-1]
    (expected,) = segmenter.stream([image], aspects=[high / wide])
    mask = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, to_stored(expected.mask) * np.uint8(255))
    for name in MAPS:
        values = cv2.imread(str(tmp_path / f"out_{name}.tif"), cv2.IMREAD_UNCHANGED)
        turned = to_stored(getattr(expected, name))
        np.testing.assert_allclose(values, turned, atol=1e-5)
    shown = expected.mask, expected.uncertainty
    picture = overlay(
        *(np.ascontiguousarray(to_stored(x)) for x in (image, *shown)),
        window_hu=segmenter.trained.window_hu,
    )
    written = cv2.imread(str(tmp_path / "out_overlay.png"))
    np.testing.assert_array_equal(written, picture)


def test_a_picture_is_not_the_mask_of_a_file_of_several_frames(segmenter, tmp_path):
    file = write_enhanced(tmp_path / "in")
    with pytest.raises(UserError, match="in.dcm has 6 slices, too many for .*out.png"):
        predict(segmenter, file, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_a_slice_has_no_sides(segmenter, images, tmp_path):
    write_image(tmp_path / "a.tif", images[0])
    with pytest.raises(UserError, match="is a slice"):
        predict(segmenter, tmp_path / "a.tif", tmp_path / "m.tif", labels="sides")
    assert not (tmp_path / "m.tif").exists()


def test_cleans_up_the_mask_of_a_volume(segmenter, images, tmp_path):
    np.save(tmp_path / "in.npy", images)
    table = tmp_path / "t.csv"
    predict(
        segmenter, tmp_path / "in.npy", tmp_path / "out.npy", table=table, cleanup=True
    )
    expected = mark_air(images, segmenter(images).mask)
    clean_volume(expected, has_air=True)
    assert expected.any()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    areas = [
        int(row["area_px"]) for row in csv.DictReader(table.open()) if row["area_px"]
    ]
    assert areas == expected.sum(axis=(1, 2)).tolist()


def test_air_is_not_looked_for_in_values_that_are_not_hounsfield_units(
    trained, images, tmp_path
):
    preprocessing = dataclasses.replace(trained.preprocessing, window_hu=(0.0, 255.0))
    trained = dataclasses.replace(trained, domain="8-bit", preprocessing=preprocessing)
    segmenter = LungSegmenter(trained)
    gray = np.interp(images, (-1000, 400), (0, 255)).astype(np.uint8)
    np.save(tmp_path / "in.npy", gray)
    predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy", cleanup=True)
    expected = segmenter(gray).mask.astype(np.uint8)
    clean_volume(expected)
    assert expected.any()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


def test_a_slice_that_is_unlike_its_neighbors_is_to_review(segmenter, images, tmp_path):
    volume = np.repeat(images[:1], 5, axis=0)
    volume[2] = 40
    np.save(tmp_path / "in.npy", volume)
    table = tmp_path / "t.csv"
    predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy", table=table)
    rows = [row for row in csv.DictReader(table.open()) if row["slice"] != "all"]
    is_unlike = [NEIGHBORS in row["reasons"] for row in rows]
    assert is_unlike == [False, False, True, False, False]
    assert rows[2]["review"] == "1"


@pytest.mark.parametrize("degrees", [20, 40])
def test_says_that_a_volume_is_oblique(degrees, segmenter, images, tmp_path, capsys):
    volume = sitk.GetImageFromArray(images)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    volume.SetDirection((1, 0, 0, 0, cos, -sin, 0, sin, cos))
    sitk.WriteImage(volume, str(tmp_path / "in.nii.gz"))
    predict(segmenter, tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    line = f"in.nii.gz is oblique: its axes are up to {degrees} degrees from"
    assert (line in capsys.readouterr().out) == (degrees > 25)


def test_segments_a_volume_without_geometry(segmenter, images, tmp_path):
    np.save(tmp_path / "in.npy", images)
    predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), segmenter(images).mask)


def test_reports_the_faults_of_all_inputs_with_remedies(segmenter, images, tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in/a.tif", images[0])
    write_image(tmp_path / "in/b.tif", np.arange(16, dtype=np.uint8).reshape(4, 4))
    (tmp_path / "in/c.tif").write_bytes(b"cut")
    with pytest.raises(UserError) as e:
        predict(segmenter, tmp_path / "in", tmp_path / "out", table=tmp_path / "t.csv")
    lines = e.value.what.splitlines()
    assert lines[0] == "2 faults in 3 inputs, nothing was written:"
    assert sum(line.startswith("    fix:   ") for line in lines) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_refuses_a_volume_with_other_units_before_writing(segmenter, images, tmp_path):
    shifted = sitk.GetImageFromArray((images + 1100).astype(np.uint16))
    sitk.WriteImage(shifted, str(tmp_path / "in.nii"))
    with pytest.raises(UserError, match="before the offset is added"):
        predict(segmenter, tmp_path / "in.nii", tmp_path / "out.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["in.nii"]


def test_leaves_no_mask_of_a_volume_found_to_be_damaged(segmenter, tmp_path, slices):
    images = np.stack([image_slice.image for image_slice in slices(30)])
    images = images.astype(np.float32)
    images[12, 3, 3] = np.nan  # not one of the slices that are checked beforehand
    sitk.WriteImage(sitk.GetImageFromArray(images), str(tmp_path / "in.nrrd"))
    with pytest.raises(UserError, match="slice 12"):
        predict(
            segmenter, tmp_path / "in.nrrd", tmp_path / "out.nrrd", table=tmp_path / "t"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in.nrrd"]


def test_refuses_a_volume_with_a_slice_in_other_units(segmenter, tmp_path, slices):
    images = np.stack([image_slice.image for image_slice in slices(30)])
    images[12] += 1100  # not one that is checked beforehand
    np.save(tmp_path / "in.npy", images)
    with pytest.raises(UserError, match="slice 12 of .* before the offset is added"):
        predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_accepts_a_slice_of_padding_and_soft_tissue(segmenter, images, tmp_path):
    images[1] = images[1].clip(0, 52)
    np.save(tmp_path / "in.npy", images)
    predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == images.shape
    assert segmenter(tmp_path / "in.npy").mask.shape == images.shape


def test_omits_review_without_a_limit(trained, images, tmp_path):
    plain = LungSegmenter(dataclasses.replace(trained, tuning={}))
    write_image(tmp_path / "a.tif", images[0])
    table = tmp_path / "t.csv"
    predictions = predict(plain, tmp_path / "a.tif", tmp_path / "m.png", table=table)
    (row,) = csv.DictReader(table.open())
    assert tuple(row) == COLUMNS and row["review"] == "" == row["area_mm2"]
    assert "review" not in predictions.summary()
    assert "expected IoU" in predictions.summary()


def test_omits_densities_unless_in_hounsfield_units(segmenter, images, tmp_path):
    with PredictionTable(tmp_path / "t.csv", domain="8-bit") as predictions:
        predictions.add(slice_row("a", None, images[0], *row_of(segmenter(images[0]))))
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert row["mean_hu"] == "" and int(row["area_px"]) > 0


def test_summary_counts_empty_masks(segmenter, images):
    segmentation = segmenter(images[0])
    empty = np.zeros_like(segmentation.mask)
    with PredictionTable(None) as predictions:
        predictions.add(slice_row("a", None, images[0], *row_of(segmentation)))
        assert "no lung" not in predictions.summary()
        without_lung = dataclasses.replace(segmentation, mask=empty)
        predictions.add(slice_row("b", None, images[0], *row_of(without_lung)))
    assert "no lung was found in 1 of 2 slices" in predictions.summary()


def test_summary_names_a_volume_once_and_its_neighbors_as_one_span(segmenter, images):
    segmentation = segmenter(images[0])
    mask = segmentation.mask
    flagged = dataclasses.replace(Confidence.of(segmentation), review=True)
    slices = [("a", k) for k in (2, 7, 8, 9)] + [("b", 9), ("c.tif", None)]
    with PredictionTable(None) as predictions:
        for name, k in slices:
            predictions.add(slice_row(name, k, images[0], mask, flagged))
        assert (
            "6 of 6 slices to review: a:2, 7-9, b:9, c.tif\n" in predictions.summary()
        )
        for k in range(20, 60, 2):
            predictions.add(slice_row("d", k, images[0], mask, flagged))
    assert (
        "c.tif, d:20, 22, 24, 26, 28, 30, 32, 34 and 12 more" in predictions.summary()
    )


def test_leaves_no_temporary_file_if_the_csv_cannot_be_written(
    segmenter, images, tmp_path
):
    segmentation = segmenter(images[0])
    with pytest.raises(UserError, match="t.csv cannot be written"):
        with PredictionTable(tmp_path / "t.csv") as predictions:
            not_utf_8 = "a\udcff"
            predictions.add(
                slice_row(not_utf_8, None, images[0], *row_of(segmentation))
            )
            (tmp_path / "t.csv").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_an_error_of_another_file_is_not_reported_as_one_of_the_csv(tmp_path):
    with pytest.raises(FileNotFoundError, match="mask.png"):
        with PredictionTable(tmp_path / "t.csv"):
            (tmp_path / "mask.png").read_bytes()
    assert not list(tmp_path.iterdir())


def test_csv_rows_end_in_line_feeds(tmp_path):
    with PredictionTable(tmp_path / "t.csv"):
        pass
    assert (tmp_path / "t.csv").read_bytes() == (",".join(COLUMNS) + "\n").encode()


@pytest.mark.parametrize("name", ["out.seg.dcm", "out.seg.nrrd"])
@pytest.mark.parametrize("labels", ["lung", "sides"])
def test_writes_segmentations_for_viewers(segmenter, images, name, labels, tmp_path):
    """With the same voxels as a NIfTI mask, and the segments of its labels."""
    stored = (images + 1024).astype(np.int16)
    write_series(tmp_path / "in", array=stored)
    edit((tmp_path / "in").iterdir(), FrameOfReferenceUID=generate_uid())
    for target in ("mask.nii", name):
        predict(segmenter, tmp_path / "in", tmp_path / target, labels=labels)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "mask.nii")))
    if name.endswith(".nrrd"):
        read = sitk.ReadImage(str(tmp_path / name))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read), mask)
        segments = [read.GetMetaData(f"Segment{i}_Name") for i in range(mask.max())]
    else:
        read = hd.seg.segread(tmp_path / name)
        upright = read.get_volume(combine_segments=True)
        upright = upright.to_patient_orientation("HPL").array
        used = np.flatnonzero(mask.any(axis=(1, 2)))
        np.testing.assert_array_equal(upright, mask[used[0] : used[-1] + 1])
        segments = [d.segment_label for d in read.SegmentSequence]
    expected = {"lung": ["Lung"], "sides": ["Right lung", "Left lung"]}
    assert segments == expected[labels]
