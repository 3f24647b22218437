"""Scores of masks against masks: files, folders and volumes."""

import csv
import unicodedata

import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.data.io.images import write_image
from lungseg_jax.evaluation import mask_pairs
from lungseg_jax.evaluation.comparison import (
    WORST,
    compare_masks,
    compare_volumes,
    format_scores,
)
from lungseg_jax.evaluation.mask_pairs import check_grids, pair_masks, pair_volumes
from lungseg_jax.evaluation.slice_scores import write_scores
from lungseg_jax.metrics.surface_distance import surface_scores
from lungseg_jax.runtime.errors import UserError


def box(left, shape=(40, 40)):
    mask = np.zeros(shape, np.uint8)
    mask[10:30, left : left + 20] = 1
    return mask


def comparison_of(truth, mask, tolerance=2.0):
    with pair_masks(truth, mask) as pairs:
        comparison = compare_masks(pairs, tolerance=tolerance)
    assert comparison["scores"]["n"] == pairs.count
    return comparison


def test_two_files(tmp_path):
    write_image(tmp_path / "t.png", box(10) * np.uint8(255))
    write_image(tmp_path / "m.tif", box(14))  # {0, 255} or {0, 1}
    comparison = comparison_of(tmp_path / "t.png", tmp_path / "m.tif")
    assert comparison["unit"] == "px"
    assert comparison["scores"]["iou_pooled"] == pytest.approx(16 / 24)
    assert comparison["scores"]["hd95_mean"] == 4.0
    assert comparison["pooled_area_error"] == 0.0
    text = format_scores(comparison)
    assert "0.6667" in text and "1 slice" in text and "intervals" not in text


def test_two_folders(tmp_path):
    for folder, lefts in (("t", (10, 10, None)), ("m", (10, 20, None))):
        (tmp_path / folder).mkdir()
        for i, left in enumerate(lefts):
            mask = np.zeros((40, 40), np.uint8) if left is None else box(left)
            write_image(tmp_path / folder / f"s{i}.png", mask)
    comparison = comparison_of(tmp_path / "t", tmp_path / "m")
    assert (comparison["scores"]["n"], comparison["scores"]["n_both_empty"]) == (3, 1)
    assert comparison["scores"]["iou_mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert "intervals hold 95 %" in format_scores(comparison)
    write_scores(tmp_path / "scores.csv", comparison["slices"])
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slice"] for row in rows] == ["s0", "s1", "s2"]
    assert rows[2]["iou"] == "" and float(rows[1]["iou"]) == pytest.approx(1 / 3)


def test_skips_what_predict_writes_beside_its_masks(tmp_path):
    for folder, names in (("t", ["a"]), ("m", ["a", "a_overlay", "a_uncertainty"])):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", box(10))
    assert comparison_of(tmp_path / "t", tmp_path / "m")["scores"]["n"] == 1


def test_an_image_and_an_array(tmp_path):
    write_image(tmp_path / "t.tif", box(10))
    np.save(tmp_path / "m.npy", box(14))
    comparison = comparison_of(tmp_path / "t.tif", tmp_path / "m.npy")
    assert comparison["scores"]["iou_pooled"] == pytest.approx(16 / 24)


def test_folders_of_arrays(tmp_path):
    """As predict writes them, with the maps beside the masks."""
    for folder, left in (("t", 10), ("m", 14)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", box(left) * np.uint8(255))
    np.save(tmp_path / "m/a_uncertainty.npy", np.zeros((40, 40), np.float32))
    (tmp_path / "m/._a.npy").write_bytes(b"hidden")
    comparison = comparison_of(tmp_path / "t", tmp_path / "m")
    assert comparison["scores"]["iou_pooled"] == pytest.approx(16 / 24)
    np.save(tmp_path / "m/b.npy", box(10)[None])
    assert_refused(
        "1 volume among single slices:\n  .*b.npy", tmp_path / "t", tmp_path / "m"
    )


def write_volume(path, lefts, spacing=(0.5, 0.5, 2.0)):
    image = sitk.GetImageFromArray(np.stack([box(left) for left in lefts]))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def test_distances_of_volumes_are_in_millimetres(tmp_path):
    truth = write_volume(tmp_path / "t.nii.gz", (10, 10))
    mask = write_volume(tmp_path / "m.mha", (10, 14))
    comparison = comparison_of(truth, mask, tolerance=1.0)
    assert comparison["unit"] == "mm"
    assert comparison["slices"]["1"]["hd95"] == 2.0  # 4 pixels
    assert comparison["scores"]["iou_pooled"] == pytest.approx(36 / 44)


def test_each_volume_is_opened_once(tmp_path, monkeypatch):
    """To open a compressed one is to decompress it."""
    opened = []

    def recorded(path, open_volume=mask_pairs.open_volume):
        opened.append(path)
        return open_volume(path)

    monkeypatch.setattr(mask_pairs, "open_volume", recorded)
    paths = [write_volume(tmp_path / f"{name}.nii.gz", (10, 10)) for name in "tm"]
    comparison_of(*paths)
    assert opened == paths


def test_volumes_are_scored_in_3d(tmp_path):
    """Against the same scores of the stacked masks, with the spacing of the slices."""
    truth = write_volume(tmp_path / "t.nii.gz", (10, 10, 10))
    mask = write_volume(tmp_path / "m.nii.gz", (10, 14, 11))
    comparison = comparison_of(truth, mask, tolerance=1.0)
    stacks = [np.stack([box(x) for x in xs]) > 0 for xs in ((10, 14, 11), (10,) * 3)]
    expected = surface_scores(*stacks, spacing=(2.0, 0.5, 0.5), tolerance=1.0)
    volume = comparison["volume"]
    assert {name: volume[name] for name in expected} == expected
    assert 0.5 < volume["nsd"] < 1 and volume["assd"] > 0
    assert volume["dice"] == pytest.approx(55 / 60)
    assert volume["iou"] == comparison["scores"]["iou_pooled"]
    assert volume["area_error"] == comparison["pooled_area_error"] == 0.0
    text = format_scores(comparison)
    assert "in 3D" in text and f"{'Dice':14}    0.9167\n" in text
    assert "volume error" in text and "all slices together" not in text


@pytest.mark.parametrize("shown,dice,nsd", [(True, 0.0, 0.0), (False, None, None)])
def test_empty_volumes(tmp_path, shown, dice, nsd):
    empty = sitk.GetImageFromArray(np.zeros((2, 40, 40), np.uint8))
    sitk.WriteImage(empty, str(tmp_path / "t.nii"))
    if shown:
        mask = write_volume(tmp_path / "m.nii", (10, 10), spacing=(1.0, 1.0, 1.0))
    else:
        mask = tmp_path / "t.nii"
    comparison = comparison_of(tmp_path / "t.nii", mask)
    assert comparison["volume"]["dice"] == dice and comparison["volume"]["nsd"] == nsd
    diagonal = pytest.approx((2 * 40**2 + 2**2) ** 0.5) if shown else None
    assert comparison["volume"]["hd95"] == diagonal
    assert ("NSD                    -" in format_scores(comparison)) != shown


def test_files_have_no_score_in_3d(tmp_path):
    write_image(tmp_path / "a.png", box(10))
    comparison = comparison_of(tmp_path / "a.png", tmp_path / "a.png")
    assert comparison["volume"] is None and "3D" not in format_scores(comparison)


def assert_refused(match, truth, mask):
    with pytest.raises(UserError, match=match):
        comparison_of(truth, mask)


def test_refuses_masks_that_do_not_match(tmp_path):
    file = tmp_path / "a.png"
    write_image(file, box(10))
    volume = write_volume(tmp_path / "v.nii", (10,))
    elsewhere = write_volume(tmp_path / "w.nii", (10,), spacing=(1.0, 0.5, 2.0))
    assert_refused("does not exist", file, tmp_path / "none.png")
    assert_refused("is a file and .* is a volume", file, volume)
    assert_refused("different sizes or geometries:\n  .*v.nii: ", volume, elsewhere)
    assert_refused("w.nii: .* voxels of 1 x 0.5 x 2 mm", volume, elsewhere)
    write_image(tmp_path / "b.png", box(10, (40, 50)))
    assert_refused("50 x 40", file, tmp_path / "b.png")
    for folder, names in (("t", "ab"), ("m", "bc")):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", box(10))
    (tmp_path / "empty").mkdir()
    assert_refused("empty has no masks", tmp_path / "empty", tmp_path / "m")
    faults = "(?s)2 files in .* without a partner.*fix:   rename"
    assert_refused(faults, tmp_path / "t", tmp_path / "m")
    (tmp_path / "m" / "v.nii.gz").touch()
    assert_refused("1 volume among single slices", tmp_path / "t", tmp_path / "m")
    probabilities = sitk.GetImageFromArray(np.full((1, 40, 40), 0.5, np.float32))
    sitk.WriteImage(probabilities, str(tmp_path / "p.nii"))
    soft = write_volume(tmp_path / "q.nii", (10,), spacing=(1.0, 1.0, 1.0))
    assert_refused("has the values 0.5", tmp_path / "p.nii", soft)


def test_an_array_is_compared_with_arrays_only(tmp_path):
    volume = write_volume(tmp_path / "t.nii", (10, 14))
    for name, lefts in (("t", (10, 14)), ("m", (10, 14)), ("n", (10,))):
        stack = np.stack([box(left) for left in lefts])
        np.save(tmp_path / f"{name}.npy", stack > 0)  # as of `Segmentation.mask`
    comparison = comparison_of(tmp_path / "t.npy", tmp_path / "m.npy")
    assert comparison["scores"]["iou_pooled"] == 1.0 and comparison["unit"] == "px"
    for pair in ((volume, tmp_path / "m.npy"), (tmp_path / "m.npy", volume)):
        assert_refused("m.npy has no geometry, and .*t.nii has one", *pair)
    sizes = "(?s)t.npy: 40 x 40 x 2 voxels\n.*n.npy: 40 x 40 x 1 voxels\n"
    assert_refused(sizes, tmp_path / "t.npy", tmp_path / "n.npy")


def test_names_match_however_their_accents_are_stored(tmp_path):
    """As `data.pairs.same_names` says."""
    mask = np.zeros((4, 4), np.uint8)
    mask[1:3] = 255
    for form in ("NFC", "NFD"):
        (tmp_path / form).mkdir()
        name = unicodedata.normalize(form, "\u00e9.png")
        write_image(tmp_path / form / name, mask)
    with pair_masks(tmp_path / "NFC", tmp_path / "NFD") as pairs:
        assert pairs.count == 1


def write_volumes(folder, **lefts):
    """Write volumes by path without suffix, where __ separates folders."""
    for name, where in lefts.items():
        path = folder / f"{name.replace('__', '/')}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, where)


def test_folders_of_volumes_are_scored_in_3d(tmp_path):
    """Each as by itself; nnU-Net ends the names of images with _0000."""
    truth, masks = tmp_path / "t", tmp_path / "m"
    write_volumes(truth, a=(10, 10), anna__ct=(10, 10), empty=(20, 20))
    write_volumes(masks, a_0000=(10, 14), anna__ct=(10, 11), empty=(20, 20))
    for path in (truth / "empty.nii.gz", masks / "empty.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(path) * 0, str(path))
    write_volumes(masks, a_0000_uncertainty=(10, 14), anna__ct_probability=(1, 1))
    (masks / "index.html").touch()
    write_image(masks / "a_0000_overlay.png", box(10))
    pairs, seen = pair_volumes(truth, masks), []
    check_grids(pairs, progress=lambda: seen.append(1))
    assert list(pairs) == ["a", "anna/ct", "empty"] and len(seen) == 3
    comparison = compare_volumes(pairs, tolerance=1.0)
    assert comparison["unit"] == "mm" and comparison["scores"]["n_both_empty"] == 1
    for name in ("a", "anna/ct"):
        scored_by_itself = comparison_of(*pairs[name], tolerance=1.0)["volume"]
        assert comparison["volumes"][name] == scored_by_itself
    mean = np.mean([comparison["volumes"][name]["iou"] for name in ("a", "anna/ct")])
    assert comparison["scores"]["iou_mean"] == pytest.approx(mean)
    text = format_scores(comparison).splitlines()
    assert [line.split()[-1] for line in text[2:5]] == ["a", "anna/ct", "empty"]
    assert "volume error" in text[1] and "resamples of the volumes" in text[-1]
    write_scores(tmp_path / "scores.csv", comparison["volumes"], of="volume")
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert [row["volume"] for row in csv.DictReader(file)] == list(pairs)


def test_the_worst_of_many_volumes_are_listed(tmp_path):
    write_volumes(tmp_path / "t", **{f"v{i}": (10,) for i in range(WORST + 2)})
    write_volumes(tmp_path / "m", **{f"v{i}": (10 + i,) for i in range(WORST + 2)})
    pairs = pair_volumes(tmp_path / "t", tmp_path / "m")
    text = format_scores(compare_volumes(pairs, tolerance=2.0)).splitlines()
    assert text[0] == f"the worst {WORST} of {WORST + 2} volumes, in 3D:"
    assert [line.split()[-1] for line in text[2:4]] == ["v11", "v10"]
    assert not any(line.endswith("v1") for line in text)


def test_faults_of_folders_of_volumes(tmp_path):
    truth, masks = tmp_path / "t", tmp_path / "m"
    write_volumes(truth, a=(10,), b=(10,), c=(10,))
    write_volumes(masks, a=(10, 10), b=(10,))
    with pytest.raises(UserError, match="(?s)1 file .*c.nii.gz"):
        pair_volumes(truth, masks)
    (masks / "c.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UserError, match="(?s)2 faults in 3 pairs.*a.nii.gz.*c.nii.gz"):
        check_grids(pair_volumes(truth, masks), progress=lambda: None)
    np.save(truth / "a.npy", np.zeros((1, 40, 40), np.uint8))
    with pytest.raises(UserError, match="a.nii.gz and .*a.npy have the same name"):
        pair_volumes(truth, masks)
    for folder in (truth, masks):
        (folder / "a.nii.gz").unlink(missing_ok=True)
        (folder / "c.nii.gz").unlink()
        np.save(folder / "a.npy", np.zeros((1, 40, 40), np.uint8))
    with pytest.raises(UserError, match="some volumes are arrays"):
        check_grids(pair_volumes(truth, masks), progress=lambda: None)
    write_image(truth / "slice.png", box(10))
    with pytest.raises(UserError, match="2 volumes among single slices"):
        pair_volumes(truth, masks)
    for folder in (truth, masks):
        (folder / "below").mkdir()
        for path in (*folder.glob("*.npy"), *folder.glob("*.nii.gz")):
            path.rename(folder / "below" / path.name)
    with pytest.raises(UserError, match="2 volumes among single slices"):
        pair_volumes(truth, masks)
    truth, masks = truth / "below", masks / "below"
    assert pair_volumes(truth / "b.nii.gz", masks / "b.nii.gz") == {}


def test_lung_is_selected_from_a_label_of_organs(tmp_path):
    organs = box(10) * np.uint8(3) + box(30) * np.uint8(5)
    for suffix in (".png", ".nii.gz"):
        truth, mask = tmp_path / f"t{suffix}", tmp_path / f"m{suffix}"
        if suffix == ".png":
            write_image(truth, organs)
            write_image(mask, box(10))
        else:
            sitk.WriteImage(sitk.GetImageFromArray(organs[None]), str(truth))
            sitk.WriteImage(sitk.GetImageFromArray(box(10)[None]), str(mask))
        assert_refused("has the values 0, 3, 5", truth, mask)
        with pair_masks(truth, mask, lung=[3, 4]) as pairs:
            scores = compare_masks(pairs, tolerance=2.0)["scores"]
        assert scores["iou_pooled"] == 1.0
        assert_refused("has the values 0, 3, 5", mask, truth)
    write_volumes(tmp_path / "m", a=(10,))
    (tmp_path / "t").mkdir()
    labels = sitk.ReadImage(tmp_path / "m/a.nii.gz") * 4
    sitk.WriteImage(labels, str(tmp_path / "t/a.mha"))
    pairs = pair_volumes(tmp_path / "t", tmp_path / "m")
    comparison = compare_volumes(pairs, tolerance=2.0, lung=[3, 4])
    assert comparison["volumes"]["a"]["iou"] == 1.0


def test_refuses_two_masks_of_one_name(tmp_path):
    """One of them would be scored, and the other left out."""
    composed, apart = (unicodedata.normalize(f, "\u00e9.png") for f in ("NFC", "NFD"))
    for folder, names in (("t", [apart]), ("m", [composed, apart])):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / name, box(10))
    assert_refused("accents are stored are one name", tmp_path / "t", tmp_path / "m")


def test_refuses_values_of_lung_that_no_truth_has(tmp_path):
    for name in "tm":
        write_volumes(tmp_path / name, a=(10,))
    pairs = pair_volumes(tmp_path / "t", tmp_path / "m")
    with pytest.raises(UserError, match="(?s)no true mask has lung.*values 3, 4"):
        compare_volumes(pairs, tolerance=2.0, lung=[4, 3])
    with pair_masks(*pairs["a"], lung=[3]) as masks:
        with pytest.raises(UserError, match="no true mask has lung"):
            compare_masks(masks, tolerance=2.0)


def test_links_in_folders_of_volumes_are_said(tmp_path, capsys):
    write_volumes(tmp_path / "t", a=(10,), _0000=(10,))
    (tmp_path / "t/more").symlink_to(tmp_path / "t")
    assert list(pair_volumes(tmp_path / "t", tmp_path / "t")) == ["_0000", "a"]
    said = f"skipped: {tmp_path}/t/more: link to a folder\n"
    assert capsys.readouterr().out == 2 * said


def test_refuses_an_array_of_a_slice_among_true_volumes(tmp_path):
    for name in "tm":
        write_volumes(tmp_path / name, a=(10,))
        np.save(tmp_path / name / "b.npy", box(10))
    with pytest.raises(UserError, match="1 volume among single slices"):
        pair_volumes(tmp_path / "t", tmp_path / "m")
