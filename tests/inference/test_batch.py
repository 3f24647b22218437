"""Folders of patients: found at any depth, skipped where broken, resumed where stopped."""

import csv
import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.phantom.volume import make_volume
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.inference.predict_files import predict_files
from lungseg_jax.inference.prediction_rows import read_rows
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.resumption import unfinished
from lungseg_jax.prediction import run_prediction
from lungseg_jax.runtime.errors import UserError


@pytest.fixture
def patients(tmp_path):
    """Two scans, with one that is cut short between them."""
    folder = tmp_path / "patients"
    for name, seed in (("anna/ct1", 1), ("bert", 2), ("carl/study/ct", 3)):
        image = make_volume(seed, slices=3, size=64)[0]
        file = folder / f"{name}.nii"
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image.transpose(2, 1, 0), np.eye(4)), file)
    broken = folder / "bert.nii"
    broken.write_bytes(broken.read_bytes()[:5000])
    return folder


def left_of(tasks, *, measured, overwrite=False):
    return unfinished(tasks, measured=measured, outdated=(), overwrite=overwrite)


def masks_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.nii"))


def predict(segmenter, tasks, table=None, kept=(), skip=True):
    with PredictionTable(table, kept=kept) as predictions:
        return predict_files(segmenter, tasks, predictions, skip=skip), predictions


def test_masks_are_where_their_inputs_are(patients, tmp_path):
    tasks = plan_outputs(patients, tmp_path / "out")
    targets = [str(task.target.relative_to(tmp_path / "out")) for task in tasks]
    assert targets == ["bert.nii", "anna/ct1.nii", "carl/study/ct.nii"]


def test_names_links_that_it_does_not_follow(patients, tmp_path, capsys):
    link = patients / "anna" / "back"
    link.symlink_to(patients)
    assert len(plan_outputs(patients, tmp_path / "out")) == 3
    assert f"skipped: {link}: link to a folder" in capsys.readouterr().out


def test_slices_below_the_folder_are_not_inputs(patients, tmp_path, slices):
    np.save(patients / "anna" / "slice.npy", next(iter(slices(1))).image)
    assert len(plan_outputs(patients, tmp_path / "out")) == 3


def test_a_broken_volume_does_not_stop_the_others(segmenter, patients, tmp_path):
    tasks = plan_outputs(patients, tmp_path / "out")
    skipped, table = predict(segmenter, tasks, tmp_path / "t.csv")
    assert [str(patients / "bert.nii") in e.what for e in skipped.values()] == [True]
    assert masks_in(tmp_path / "out") == ["anna/ct1.nii", "carl/study/ct.nii"]
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert {row["input"] for row in rows} == {
        str(patients / "anna/ct1.nii"),
        str(patients / "carl/study/ct.nii"),
    }
    assert [row["slice"] for row in rows] == ["0", "1", "2", "all"] * 2
    assert [volume["slices"] for volume in table.volumes] == [3, 3]


@pytest.mark.parametrize("fails", [2, 5, 9])  # the check, the prediction, the rows
def test_a_disk_that_fails_does_not_stop_the_others(
    segmenter, patients, tmp_path, monkeypatch, fails
):
    def file_index(self, k, file_index=Geometry.file_index):
        reads.append(k)
        if len(reads) == fails:
            raise OSError(errno.EIO, "Input/output error")
        return file_index(self, k)

    reads = []
    monkeypatch.setattr(Geometry, "file_index", file_index)
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    skipped, table = predict(segmenter, tasks, tmp_path / "t.csv")
    (error,) = skipped.values()
    assert "anna/ct1.nii cannot be read: Input/output error" in error.what
    assert masks_in(tmp_path / "out") == ["carl/study/ct.nii"]
    assert list(read_rows(tmp_path / "t.csv")) == [tasks[1].name]
    assert "anna" not in table.summary()


def test_without_skip_a_broken_volume_ends_the_prediction(
    segmenter, patients, tmp_path
):
    tasks = plan_outputs(patients, tmp_path / "out")
    with pytest.raises(UserError, match="bert.nii"):
        predict(segmenter, tasks, tmp_path / "t.csv", skip=False)
    assert not (tmp_path / "t.csv").exists()


def test_the_only_volume_is_not_skipped(segmenter, patients, tmp_path):
    tasks = plan_outputs(patients / "bert.nii", tmp_path / "out.nii")
    with pytest.raises(UserError, match="bert.nii") as e:
        run_prediction(segmenter, tasks, tmp_path / "out.nii", network={})
    assert "skipped" not in e.value.what


def test_results_of_masks_that_are_kept_need_a_table(segmenter, patients, tmp_path):
    tasks = plan_outputs(patients, tmp_path / "out")
    options = {"json": tmp_path / "results.json", "network": {}}
    with pytest.raises(UserError, match="--json with --resume needs --csv"):
        run_prediction(segmenter, tasks, tmp_path / "out", resume=True, **options)
    assert not (tmp_path / "out").exists()


def test_a_table_that_cannot_be_written_ends_the_prediction(
    segmenter, patients, tmp_path
):
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(UserError, match="t.csv cannot be written"):
        predict(segmenter, tasks, tmp_path / "t.csv")
    assert not masks_in(tmp_path / "out")  # nor is there a mask without its rows


def test_a_mask_that_cannot_be_published_ends_the_prediction(
    segmenter, patients, tmp_path
):
    """It is not skipped, because its rows are in the table."""
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    tasks[0].target.mkdir(parents=True)
    with pytest.raises(UserError, match="ct1.nii cannot be written"):
        predict(segmenter, tasks, tmp_path / "t.csv")
    assert list(read_rows(tmp_path / "t.csv")) == [tasks[0].name]


def test_a_table_that_was_moved_away_begins_again_with_its_header(
    segmenter, patients, tmp_path
):
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    with PredictionTable(tmp_path / "t.csv") as table:
        predict_files(segmenter, tasks[:1], table)
        (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
        predict_files(segmenter, tasks[1:], table)
    for name, task in zip(("moved.csv", "t.csv"), tasks, strict=True):
        assert list(read_rows(tmp_path / name)) == [task.name]


class Stop(BaseException):
    """As Ctrl-C and SIGTERM are."""


def test_what_is_stopped_is_resumed(segmenter, patients, tmp_path):
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    whole, once = tmp_path / "whole.csv", tmp_path / "t.csv"
    predict(segmenter, plan_outputs(patients, tmp_path / "all")[1:], whole)

    def stop():
        raise Stop

    with pytest.raises(Stop), PredictionTable(once) as table:
        predict_files(segmenter, tasks[:1], table)
        predict_files(segmenter, tasks[1:], table, begin=stop)
    rows = read_rows(once)
    left = left_of(tasks, measured=rows)
    assert [task.name for task in left] == [tasks[1].name]
    before = tasks[0].target.stat().st_mtime_ns
    predict(segmenter, left, once, kept=rows[tasks[0].name])
    assert tasks[0].target.stat().st_mtime_ns == before
    assert once.read_text() == whole.read_text()
    assert left_of(tasks, measured=read_rows(once)) == []


def test_rows_of_a_volume_that_was_cut_short_are_not_kept(
    segmenter, patients, tmp_path
):
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    predict(segmenter, tasks, tmp_path / "t.csv")
    complete = (tmp_path / "t.csv").read_text()
    for end in (2, 30, 400):  # killed while it wrote the last rows
        (tmp_path / "t.csv").write_text(complete[:-end])
        rows = read_rows(tmp_path / "t.csv")
        assert list(rows) == [tasks[0].name]
        with pytest.raises(UserError, match="1 mask would be replaced"):
            left_of(tasks, measured=rows)
        assert left_of(tasks, measured=rows, overwrite=True) == tasks[1:]


def test_without_a_table_a_mask_is_enough(segmenter, patients, tmp_path):
    tasks = plan_outputs(patients, tmp_path / "out")[1:]
    predict(segmenter, tasks[:1])
    assert left_of(tasks, measured=None) == tasks[1:]
    assert left_of(tasks, measured={}, overwrite=True) == tasks


def test_refuses_another_table(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table that this command has written"):
        read_rows(tmp_path / "t.csv")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_rows(tmp_path)
