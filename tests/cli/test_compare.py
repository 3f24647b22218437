"""Masks against masks: files, folders, volumes."""

import csv
import io

import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.cli.compare import _csv, compare, find, format_scores
from lungseg_jax.data.io.images import write_image
from lungseg_jax.runtime.errors import UserError


def box(left, shape=(40, 40)):
    mask = np.zeros(shape, np.uint8)
    mask[10:30, left : left + 20] = 1
    return mask


def found_in(truth, mask, tolerance=2.0):
    total, pairs = find(truth, mask)
    found = compare(pairs, tolerance=tolerance)
    assert found["scores"]["n"] == total
    return found


def test_two_files(tmp_path):
    write_image(tmp_path / "t.png", box(10) * np.uint8(255))
    write_image(tmp_path / "m.tif", box(14))  # {0, 255} or {0, 1}
    found = found_in(tmp_path / "t.png", tmp_path / "m.tif")
    assert found["unit"] == "px"
    assert found["scores"]["iou_pooled"] == pytest.approx(16 / 24)
    assert found["scores"]["hd95_mean"] == 4.0
    assert found["pooled_area_error"] == 0.0
    assert "0.6667" in format_scores(found) and "1 slice" in format_scores(found)


def test_two_folders(tmp_path):
    for folder, lefts in (("t", (10, 10, None)), ("m", (10, 20, None))):
        (tmp_path / folder).mkdir()
        for i, left in enumerate(lefts):
            mask = np.zeros((40, 40), np.uint8) if left is None else box(left)
            write_image(tmp_path / folder / f"s{i}.png", mask)
    found = found_in(tmp_path / "t", tmp_path / "m")
    assert (found["scores"]["n"], found["scores"]["n_both_empty"]) == (3, 1)
    assert found["scores"]["iou_mean"] == pytest.approx((1 + 1 / 3) / 2)
    rows = list(csv.DictReader(io.StringIO(_csv(found))))
    assert [row["slice"] for row in rows] == ["s0", "s1", "s2"]
    assert rows[2]["iou"] == "" and float(rows[1]["iou"]) == pytest.approx(1 / 3)


def test_what_predict_writes_beside_its_masks_is_passed_over(tmp_path):
    for folder, names in (("t", ["a"]), ("m", ["a", "a_overlay", "a_uncertainty"])):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", box(10))
    assert found_in(tmp_path / "t", tmp_path / "m")["scores"]["n"] == 1


def test_arrays(tmp_path):
    write_image(tmp_path / "t.tif", box(10))
    np.save(tmp_path / "m.npy", box(14))
    found = found_in(tmp_path / "t.tif", tmp_path / "m.npy")
    assert found["scores"]["iou_pooled"] == pytest.approx(16 / 24)


def write_volume(path, lefts, spacing=(0.5, 0.5, 2.0)):
    image = sitk.GetImageFromArray(np.stack([box(left) for left in lefts]))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def test_two_volumes_in_millimetres(tmp_path):
    truth = write_volume(tmp_path / "t.nii.gz", (10, 10))
    mask = write_volume(tmp_path / "m.mha", (10, 14))
    found = found_in(truth, mask, tolerance=1.0)
    assert found["unit"] == "mm"
    assert found["slices"]["1"]["hd95"] == 2.0  # 4 pixels
    assert found["scores"]["iou_pooled"] == pytest.approx(36 / 44)


def refused(match, truth, mask):
    with pytest.raises(UserError, match=match):
        found_in(truth, mask)


def test_what_cannot_be_compared(tmp_path):
    one = tmp_path / "a.png"
    write_image(one, box(10))
    volume = write_volume(tmp_path / "v.nii", (10,))
    other = write_volume(tmp_path / "w.nii", (10,), spacing=(1.0, 0.5, 2.0))
    refused("does not exist", one, tmp_path / "none.png")
    refused("is a file and .* is a volume", one, volume)
    refused("different sizes or geometries", volume, other)
    write_image(tmp_path / "b.png", box(10, (40, 50)))
    refused("50 x 40", one, tmp_path / "b.png")
    for folder, names in (("t", "ab"), ("m", "bc")):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", box(10))
    (tmp_path / "empty").mkdir()
    refused("empty has no masks", tmp_path / "empty", tmp_path / "m")
    refused("2 files in .* without a partner", tmp_path / "t", tmp_path / "m")
    (tmp_path / "m" / "v.nii.gz").touch()
    refused("1 volume in folders", tmp_path / "t", tmp_path / "m")
    probabilities = sitk.GetImageFromArray(np.full((1, 40, 40), 0.5, np.float32))
    sitk.WriteImage(probabilities, str(tmp_path / "p.nii"))
    soft = write_volume(tmp_path / "q.nii", (10,), spacing=(1.0, 1.0, 1.0))
    refused("has the values 0.5", tmp_path / "p.nii", soft)
