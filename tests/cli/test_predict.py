"""`lungseg predict`: masks of slices and folders, all inputs checked first."""

import csv
import json
import os
import shutil

import cv2
import nibabel as nib
import numpy as np

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom.volume import make_volume


def test_checks_all_inputs_before_it_writes(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    inputs = tmp_path / "in"
    shutil.copytree(labelled_folder / "2d_images", inputs)
    last = sorted(inputs.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:500])
    done = lungseg_here("predict", f"--run={trained_run}", inputs, tmp_path / "out")
    assert done.returncode == 2 and last.name in done.stderr
    assert not (tmp_path / "out").exists()


def test_writes_a_mask_for_an_image_and_for_a_folder(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    images = labelled_folder / "2d_images"
    first = sorted(images.iterdir())[0]
    done = lungseg_here("predict", f"--run={trained_run}", first, tmp_path / "m.png")
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128) and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}

    done = lungseg_here("predict", f"--run={trained_run}", images, tmp_path / "all")
    assert done.returncode == 0, done.stderr
    assert "wrote 3 masks" in done.stdout
    assert {p.name for p in (tmp_path / "all").glob("[!.]*")} == {
        p.name for p in images.iterdir()
    }
    same = cv2.imread(str(tmp_path / "all" / first.name), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(same, mask)

    before = (tmp_path / "m.png").stat().st_mtime_ns
    done = lungseg_here("predict", f"--run={trained_run}", first, tmp_path / "m.png")
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (tmp_path / "m.png").stat().st_mtime_ns == before


def test_uses_the_weights_of_the_package_and_says_so(
    labelled_folder, lungseg_here, tmp_path
):
    first = sorted((labelled_folder / "2d_images").iterdir())[0]
    done = lungseg_here("predict", first, tmp_path / "m.png")
    assert done.returncode == 0, done.stderr
    assert "weights: those of the package, trained on synthetic slices" in done.stdout
    assert cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED).any()


def test_segments_a_folder_of_patients_and_resumes(trained_run, lungseg_here, tmp_path):
    for name, seed in (("anna", 1), ("bert", 2)):
        image = make_volume(seed, slices=3, size=64)[0]
        (tmp_path / "in" / name).mkdir(parents=True)
        file = tmp_path / "in" / name / "ct.nii"
        nib.save(nib.Nifti1Image(image.transpose(2, 1, 0), np.eye(4)), file)
    (tmp_path / "in" / "carl.nii").write_bytes(b"no scan")
    words = (f"--run={trained_run}", "--overlay", "--csv=t.csv", tmp_path / "in", "out")
    done = lungseg_here("predict", *words, cwd=tmp_path)
    assert done.returncode == 2 and "carl.nii" in done.stderr
    assert done.stderr.startswith("error: 1 fault in 3 inputs, skipped:")
    assert "wrote 2 masks to out\npage: out/index.html\n" in done.stdout
    index = (tmp_path / "out" / "index.html").read_text()
    assert "anna/ct_overlay.html" in index and "1 skipped" in index

    table = (tmp_path / "t.csv").read_text()
    (tmp_path / "out" / "anna" / "ct.nii").unlink()
    (tmp_path / "in" / "carl.nii").unlink()
    killed = tmp_path / "out" / "anna" / ".0a1b2c3d.ct.nii"
    killed.mkdir()
    done = lungseg_here("predict", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 mask already there, 1 to do" in done.stdout
    assert not killed.exists()
    assert sorted((tmp_path / "t.csv").read_text().split()) == sorted(table.split())
    assert "skipped" not in (tmp_path / "out" / "index.html").read_text()


def test_resuming_replaces_no_mask_and_mixes_no_options(
    trained_run, lungseg_here, tmp_path
):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    words = f"--run={trained_run}", "in", "out"
    assert lungseg_here("predict", *words, cwd=tmp_path).returncode == 0
    corrected = tmp_path / "out" / "anna.nii"
    before = corrected.stat().st_mtime_ns
    for more in ("--uncertainty", "--csv=new.csv"):
        done = lungseg_here("predict", "--resume", more, *words, cwd=tmp_path)
        assert done.returncode == 2 and "2 masks would be replaced" in done.stderr
        assert "anna.nii has no " in done.stderr and "--overwrite" in done.stderr
    (tmp_path / "out" / "bert.nii").unlink()
    done = lungseg_here("predict", "--resume", "--labels=sides", *words, cwd=tmp_path)
    assert done.returncode == 2 and "labels: lung -> sides" in done.stderr
    done = lungseg_here("predict", "--resume", "--members=last", *words, cwd=tmp_path)
    assert done.returncode == 2 and "weights: " in done.stderr
    assert corrected.stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "bert.nii").exists()
    done = lungseg_here("predict", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out" / "bert.nii").exists()
    done = lungseg_here("predict", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 0 and "0 to do" in done.stdout
    assert "to review" not in done.stdout
    assert corrected.stat().st_mtime_ns == before


def test_resuming_keeps_no_masks_of_other_scans(trained_run, lungseg_here, tmp_path):
    write_scans(tmp_path / "a", "anna.nii", "bert.nii")
    run = f"--run={trained_run}"
    assert lungseg_here("predict", run, "a", "out", cwd=tmp_path).returncode == 0
    write_scans(tmp_path / "b", "bert.nii", "anna.nii", "carl.nii")  # others, by name
    words = "predict", "--resume", run, "b", "out"
    done = lungseg_here(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "masks in out were made from other inputs" in done.stderr
    assert "out/anna.nii: another input than b/anna.nii" in done.stderr
    assert not (tmp_path / "out" / "carl.nii").exists()
    (tmp_path / "out" / "anna.nii").unlink()
    shutil.copy(tmp_path / "a" / "bert.nii", tmp_path / "b" / "bert.nii")
    done = lungseg_here(*words, cwd=tmp_path)  # as the error says
    assert done.returncode == 0 and "1 mask already there, 2 to do" in done.stdout


def test_resuming_does_not_keep_a_single_mask(trained_run, lungseg_here, tmp_path):
    write_scans(tmp_path, "anna.nii")
    words = "predict", f"--run={trained_run}", "--resume", "anna.nii", "mask.nii"
    assert lungseg_here(*words, cwd=tmp_path).returncode == 0
    before = (tmp_path / "mask.nii").stat().st_mtime_ns
    done = lungseg_here(*words, "--labels=sides", cwd=tmp_path)
    assert done.returncode == 2 and "mask.nii is already there" in done.stderr
    assert (tmp_path / "mask.nii").stat().st_mtime_ns == before
    done = lungseg_here(*words, "--labels=sides", "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.asarray(nib.load(tmp_path / "mask.nii").dataobj).max() == 2


def test_resuming_replaces_no_files_of_others(trained_run, lungseg_here, tmp_path):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    mine = tmp_path / "mine.json", tmp_path / "out" / "index.html"
    (tmp_path / "out").mkdir()
    mine[0].write_text('{"schema_version": 1}')
    mine[1].write_text("<html><title>My site</title></html>")
    words = f"--run={trained_run}", "--csv=t.csv", "--json=mine.json", "--overlay"
    words = "predict", "--resume", *words, "in", "out"
    before = [file.read_text() for file in mine]
    done = lungseg_here(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.json and out/index.html would be replaced" in done.stderr
    assert [file.read_text() for file in mine] == before
    assert not (tmp_path / "out" / "anna.nii").exists()
    for more in ("--overwrite",), ():  # replaces them; then they are of this command
        done = lungseg_here(*words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(json.loads(mine[0].read_text())["inputs"]) == 2
    assert "anna_overlay.html" in mine[1].read_text()


def test_an_overwrite_that_was_stopped_is_resumed(trained_run, lungseg_here, tmp_path):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    write_scans(tmp_path / "other", "carl.nii")
    run, words = f"--run={trained_run}", ("--labels=sides", "in", "out")
    assert lungseg_here("predict", run, "in", "out", cwd=tmp_path).returncode == 0
    scan = tmp_path / "in" / "bert.nii"
    scan.rename(tmp_path / "bert.nii")
    scan.write_bytes(b"no scan")
    done = lungseg_here("predict", "--overwrite", run, *words, cwd=tmp_path)
    assert done.returncode == 2 and "wrote 1 mask to out" in done.stdout
    (tmp_path / "bert.nii").rename(scan)
    # Other masks of the folder have options of their own.
    assert lungseg_here("predict", run, "other", "out", cwd=tmp_path).returncode == 0
    before = (tmp_path / "out" / "bert.nii").stat().st_mtime_ns
    done = lungseg_here("predict", "--resume", run, *words, cwd=tmp_path)
    assert done.returncode == 0 and "1 mask already there, 1 to do" in done.stdout
    assert (tmp_path / "out" / "bert.nii").stat().st_mtime_ns > before
    done = lungseg_here("predict", "--resume", run, "in", "out", cwd=tmp_path)
    assert done.returncode == 2 and "labels: sides -> lung" in done.stderr


def test_a_resumed_table_knows_a_link_from_its_target(
    trained_run, lungseg_here, tmp_path
):
    write_scans(tmp_path / "in", "anna.nii")
    (tmp_path / "in" / "latest.nii").symlink_to("anna.nii")
    words = f"--run={trained_run}", "--csv=t.csv", "--resume", "in", "out"
    for left in (2, 0):
        done = lungseg_here("predict", *words, cwd=tmp_path)
        assert done.returncode == 0 and f"{left} to do" in done.stdout, done.stderr


def test_a_resumed_table_knows_a_name_that_is_not_text(
    trained_run, lungseg_here, tmp_path
):
    (tmp_path / "in").mkdir()
    slices = np.random.default_rng(0).integers(-1000, 100, (32, 32)).astype(np.int16)
    write_image(tmp_path / "in" / "a.tif", slices)
    shutil.copy(tmp_path / "in" / "a.tif", tmp_path / "in" / os.fsdecode(b"\xe9.tif"))
    words = f"--run={trained_run}", "--csv=t.csv", "--resume", "in", "out"
    for left in (2, 0):
        done = lungseg_here("predict", *words, cwd=tmp_path)
        assert done.returncode == 0 and f"{left} to do" in done.stdout, done.stderr


def test_a_resumed_table_knows_its_inputs_by_any_path(
    trained_run, lungseg_here, tmp_path
):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    words = f"--run={trained_run}", "--csv=t.csv", "--json=t.json"
    done = lungseg_here("predict", *words, "in", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "t.csv").read_text()
    (tmp_path / "out" / "bert.nii").unlink()
    (tmp_path / "t.json").unlink()
    (tmp_path / "in" / "bert.nii").write_bytes(b"no scan")
    done = lungseg_here(
        "predict", "--resume", *words, tmp_path / "in", "out", cwd=tmp_path
    )
    assert done.returncode == 2 and "bert.nii" in done.stderr
    record = json.loads(
        (tmp_path / "t.json").read_text()
    )  # also with one left, skipped
    assert len(record["inputs"]) == len(record["skipped"]) == 1
    kept = (tmp_path / "t.csv").read_text().replace(str(tmp_path / "in"), "in")
    assert kept == "".join(r for r in rows.splitlines(True) if "bert" not in r)


def test_refuses_photographs_for_a_network_of_hounsfield_units(
    trained_run, lungseg_here, tmp_path
):
    write_image(tmp_path / "photo.png", np.mgrid[:64, :64][0].astype(np.uint8))
    words = [f"--run={trained_run}", tmp_path / "photo.png", tmp_path / "m.png"]
    done = lungseg_here("predict", *words)
    assert done.returncode == 2
    assert "photo.png has gray values from 0 to 255" in done.stderr
    assert "trained on Hounsfield units" in done.stderr
    assert not (tmp_path / "m.png").exists()


def write_scans(folder, *names):
    for seed, name in enumerate(names):
        image = make_volume(seed + 1, slices=3, size=64)[0]
        folder.mkdir(exist_ok=True)
        scan = nib.Nifti1Image(image.transpose(2, 1, 0), np.diag([2, 2, 5, 1]))
        nib.save(scan, folder / name)


def test_json_has_what_the_table_has_and_the_outputs(
    trained_run, lungseg_here, tmp_path
):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    (tmp_path / "in" / "carl.nii").write_bytes(b"no scan")
    words = f"--run={trained_run}", "--overlay", "--uncertainty", "--labels=sides"
    files = "--csv=t.csv", "--json=t.json", "in", "out"
    done = lungseg_here("predict", *words, *files, cwd=tmp_path)
    assert done.returncode == 2
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["schema_version"] == 1
    assert record["options"]["labels"] == "sides"
    assert record["options"]["run"] == str(trained_run)
    (skipped,) = record["skipped"]
    assert skipped["input"] == "in/carl.nii" and "damaged" in skipped["what"]

    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [one["input"] for one in record["inputs"]] == ["in/anna.nii", "in/bert.nii"]
    for one in record["inputs"]:
        assert set(one["outputs"]) == {"mask", "uncertainty", "overlay", "page"}
        assert all((tmp_path / path).is_file() for path in one["outputs"].values())
        assert one["labels"] == {"1": "Right lung", "2": "Left lung"}
        *slices, volume = (row for row in rows if row["input"] == one["input"])
        for ours, row in zip(one["slices"], slices, strict=True):
            for column in ("slice", "expected_iou", "area_mm2", "mean_hu"):
                assert ours[column] == (float(row[column]) if row[column] else None)
        flags = [row["review"] == "1" for row in slices]
        assert [s["review"] for s in one["slices"]] == flags
        assert one["to_review"] == sum(flags)
        reasons = ["; ".join(s["reasons"]) for s in one["slices"]]
        assert reasons == [row["reasons"] for row in slices]
        for column in ("volume_ml", "right_ml", "left_ml"):
            assert one["volume"][column] == float(volume[column])
            assert column not in one["slices"][0]


def test_json_identifies_the_weights(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    """A run and its bundle have the same, and each member its own."""
    image = sorted((labelled_folder / "2d_images").iterdir())[0]
    lungseg_here("export", f"--run={trained_run}", tmp_path / "bundle")
    weights = []
    for run in (trained_run, tmp_path / "bundle"):
        words = f"--run={run}", "--json=t.json", "--overwrite", image, "m.png"
        done = lungseg_here("predict", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "t.json").read_text())
        weights.append(record["weights"])
    assert weights[0] == weights[1]
    digests = weights[0]["members"].values()
    assert len(set(digests)) == len(digests) > 1
    (one,) = record["inputs"]
    assert one["volume"] is None and one["labels"] == {"255": "Lung"}
    assert [s["slice"] for s in one["slices"]] == [None]


def test_json_of_a_resumed_prediction_is_complete(trained_run, lungseg_here, tmp_path):
    write_scans(tmp_path / "in", "anna.nii", "bert.nii")
    words = f"--run={trained_run}", "--json=t.json", "in", "out"
    done = lungseg_here("predict", "--csv=t.csv", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "t.json").read_text())
    (tmp_path / "out" / "bert.nii").unlink()
    done = lungseg_here("predict", "--csv=t.csv", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "t.json").read_text()) == record
    done = lungseg_here("predict", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 2 and "--json with --resume needs --csv" in done.stderr
    words = "--overlay", "--resume", f"--run={trained_run}", "in", "out"
    done = lungseg_here("predict", *words, cwd=tmp_path)  # index.html has results too
    assert done.returncode == 2 and "--overlay with --resume needs --csv" in done.stderr
