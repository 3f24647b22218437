"""Masks of every kind of input are the network's answer, in the input's own geometry."""

import csv
import dataclasses

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.cli import predict as command
from lungseg_jax.data.io.images import write_image
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.inference.prediction_table import COLUMNS, PredictionTable
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def segmenter(trained):
    return LungSegmenter(trained)


@pytest.fixture
def images(slices):
    return np.stack([one.image for one in slices(5)])


def predict(segmenter, source, target, *, table=None, **options):
    jobs = plan_outputs(source, target, **options)
    limit = segmenter.settings.review_below
    with PredictionTable(table, review_below=limit) as findings:
        command.predict(segmenter, jobs, findings)
    return findings


def test_a_folder_of_slices(segmenter, images, tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        write_image(tmp_path / "in" / f"s{i}.tif", image)
    np.save(tmp_path / "in" / "t.npy", images[0])
    predict(
        segmenter,
        tmp_path / "in",
        tmp_path / "out",
        maps=list(command.MAPS),
        overlay=True,
    )
    for i, image in enumerate(images):
        expected = segmenter(image)
        mask = cv2.imread(str(tmp_path / f"out/s{i}.tif"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
        for what in command.MAPS:
            file = tmp_path / f"out/s{i}_{what}.tif"
            values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            np.testing.assert_allclose(values, getattr(expected, what), atol=1e-5)
        picture = cv2.imread(str(tmp_path / f"out/s{i}_overlay.png"))
        assert picture.shape == (*image.shape, 3)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out/t.npy"), segmenter(images[0]).mask * np.uint8(255)
    )


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_volume(segmenter, images, suffix, tmp_path):
    """Stored head first and front last: turned for the network, and back."""
    turned = images[::-1, ::-1]
    volume = sitk.GetImageFromArray(np.ascontiguousarray(turned))
    volume.SetSpacing((0.7, 0.8, 2.5))
    volume.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    sitk.WriteImage(volume, str(source))
    table = tmp_path / "t.csv"
    options = {"maps": list(command.MAPS), "overlay": True, "table": table}
    findings = predict(segmenter, source, target, **options)
    expected = segmenter(images)
    mask = sitk.ReadImage(str(target))
    assert mask.GetDirection() == volume.GetDirection()
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask)[::-1, ::-1], expected.mask.astype(np.uint8)
    )
    for what in command.MAPS:
        values = sitk.GetArrayFromImage(
            sitk.ReadImage(str(tmp_path / f"out_{what}{suffix}"))
        )
        np.testing.assert_allclose(
            values[::-1, ::-1], getattr(expected, what), atol=1e-5
        )
    assert cv2.imread(str(tmp_path / "out_overlay.png")).shape == (512, 768, 3)

    rows = list(csv.DictReader(table.open()))
    assert [row["slice"] for row in rows] == ["0", "1", "2", "3", "4", "all"]
    inside = images[expected.mask]
    assert float(rows[-1]["mean_hu"]) == pytest.approx(inside.mean(), rel=1e-4)
    millilitres = inside.size * 0.7 * 0.8 * 2.5 / 1000
    assert float(rows[-1]["volume_ml"]) == pytest.approx(millilitres, rel=1e-4)
    for k in range(5):
        assert float(rows[k]["area_px"]) == expected.mask[k].sum()
        assert float(rows[k]["area_mm2"]) == pytest.approx(
            expected.mask[k].sum() * 0.7 * 0.8, rel=1e-4
        )
        assert float(rows[k]["expected_iou"]) == pytest.approx(
            expected.expected_iou[k], abs=1e-4
        )
        assert rows[k]["review"] == str(int(expected.review[k]))
    flagged = int(expected.review.sum())
    said = f"{flagged} of 5 slices to review (expected IoU below 0.600)"
    assert said in findings.summary()
    assert "lung" in findings.summary() and " ml, mean " in findings.summary()


def test_a_volume_without_geometry(segmenter, images, tmp_path):
    np.save(tmp_path / "in.npy", images)
    predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), segmenter(images).mask)


def test_faults_of_the_inputs_come_with_their_remedies(segmenter, images, tmp_path):
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


def test_a_volume_that_is_no_ct_is_refused_before_anything_is_written(
    segmenter, images, tmp_path
):
    shifted = sitk.GetImageFromArray((images + 1100).astype(np.uint16))
    sitk.WriteImage(shifted, str(tmp_path / "in.nii"))
    with pytest.raises(UserError, match="before the offset is added"):
        predict(segmenter, tmp_path / "in.nii", tmp_path / "out.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["in.nii"]


def test_a_volume_that_turns_out_to_be_damaged_leaves_no_mask(
    segmenter, tmp_path, slices
):
    images = np.stack([one.image for one in slices(30)]).astype(np.float32)
    images[11, 3, 3] = np.nan  # none of the slices that are looked at first
    sitk.WriteImage(sitk.GetImageFromArray(images), str(tmp_path / "in.nrrd"))
    with pytest.raises(UserError, match="slice 11"):
        predict(
            segmenter, tmp_path / "in.nrrd", tmp_path / "out.nrrd", table=tmp_path / "t"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in.nrrd"]


def test_a_slice_of_other_values_in_the_midst_is_found(segmenter, tmp_path, slices):
    images = np.stack([one.image for one in slices(30)])
    images[11] = (images[11] + 1000) // 8  # none of those that are looked at first
    np.save(tmp_path / "in.npy", images)
    with pytest.raises(UserError, match="slice 11 of .* gray values"):
        predict(segmenter, tmp_path / "in.npy", tmp_path / "out.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_without_a_limit_nothing_is_said_of_review(trained, images, tmp_path):
    plain = LungSegmenter(dataclasses.replace(trained, tuning={}))
    write_image(tmp_path / "a.tif", images[0])
    table = tmp_path / "t.csv"
    findings = predict(plain, tmp_path / "a.tif", tmp_path / "m.png", table=table)
    (row,) = csv.DictReader(table.open())
    assert tuple(row) == COLUMNS and row["review"] == "" == row["area_mm2"]
    assert "review" not in findings.summary()
    assert "expected IoU" in findings.summary()


def test_no_density_of_what_is_not_in_hounsfield_units(segmenter, images, tmp_path):
    with PredictionTable(tmp_path / "t.csv", domain="8-bit") as findings:
        findings.add_slice("a", None, images[0], segmenter(images[0]))
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert row["mean_hu"] == "" and int(row["area_px"]) > 0


def test_empty_masks_are_said(segmenter, images):
    found = segmenter(images[0])
    nothing = dataclasses.replace(found, mask=np.zeros_like(found.mask))
    with PredictionTable(None) as findings:
        findings.add_slice("a", None, images[0], found)
        assert "no lung" not in findings.summary()
        findings.add_slice("b", None, images[0], nothing)
    assert "no lung was found in 1 of 2 slices" in findings.summary()


def test_a_table_that_cannot_take_its_place_leaves_nothing(segmenter, images, tmp_path):
    found = segmenter(images[0])
    with pytest.raises(UserError, match="cannot be written"):
        with PredictionTable(tmp_path / "t.csv") as findings:
            findings.add_slice("a\udcff", None, images[0], found)  # no text
            (tmp_path / "t.csv").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
