"""The record of what the masks of a folder were made with."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series  # of tests/data/io/

from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.provenance import BLOCK, RECORD, Provenance
from lungseg_jax.runtime.errors import UserError


def tasks_in(folder, *names):
    return [PredictionTask(folder / name, folder / name, True) for name in names]


def make(folder, tasks, **options):
    provenance = Provenance(folder)
    provenance.plan(tasks, options, kept=[])
    for task in tasks:
        provenance.begin()
        task.target.touch()
        provenance.add(task)


def test_lines_that_cannot_be_read_cost_no_other(tmp_path):
    anna, bert, carl = tasks_in(tmp_path, "anna.nii", "bert.nii", "carl.nii")
    make(tmp_path, [anna, bert], labels="lung")
    record = tmp_path / RECORD
    record.write_bytes(record.read_bytes()[:-9] + b"\n" + b"[" * 10**5)
    make(tmp_path, [carl], labels="lung")
    for task in (anna, carl):
        with pytest.raises(UserError, match="labels: lung -> sides"):
            Provenance(tmp_path).plan([], {"labels": "sides"}, kept=[task])
    Provenance(tmp_path).plan([], {"labels": "sides"}, kept=[bert])  # of unknown origin


def test_masks_to_be_replaced_are_outdated_until_they_are(tmp_path):
    anna, bert = tasks = tasks_in(tmp_path, "anna.nii", "bert.nii")
    make(tmp_path, tasks, labels="lung")
    provenance = Provenance(tmp_path)
    provenance.plan(tasks, {"labels": "sides"}, kept=[])
    assert not Provenance(tmp_path).is_outdated(anna)
    provenance.begin()
    assert Provenance(tmp_path).is_outdated(anna)
    provenance.add(anna)
    provenance.begin()
    assert [Provenance(tmp_path).is_outdated(task) for task in tasks] == [False, True]
    assert not Provenance(None).is_outdated(bert)  # a single mask has no record


def test_a_mask_made_again_is_recorded_where_it_was(tmp_path):
    """By itself, or with the folder that it is in."""
    tasks = tasks_in(tmp_path, "anna/ct.nii", "bert/ct.nii", "carl/ct.nii")
    for task in tasks:
        task.target.parent.mkdir()
    make(tmp_path, tasks[:2], labels="lung")
    make(None, tasks[:1], labels="sides")
    make(None, tasks[2:], labels="sides")  # is not one of the folder's
    provenance = Provenance(tmp_path)
    with pytest.raises(UserError, match="labels: sides -> lung"):
        provenance.plan([], {"labels": "lung"}, kept=tasks[:1])
    provenance.plan([], {"labels": "lung"}, kept=tasks[1:])
    make(tmp_path / "bert", tasks[1:2], labels="sides")
    with pytest.raises(UserError, match="labels: sides -> lung"):
        Provenance(tmp_path).plan([], {"labels": "lung"}, kept=tasks[1:2])
    assert not (tmp_path / "carl" / RECORD).exists()


def write_inputs(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.nii").write_bytes(content)


def tasks_from(folder, out, *names):
    return [PredictionTask(folder / name, out / name, True) for name in names]


def test_masks_of_other_inputs_are_not_kept(tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out"
    scan = bytes(80 * BLOCK)  # as of a large volume with air at its borders
    write_inputs(inputs, anna=scan, bert=scan, carl=scan)
    out.mkdir()
    tasks = tasks_from(inputs, out, "anna.nii", "bert.nii", "carl.nii")
    make(out, tasks, labels="lung")
    Provenance(out).plan([], {"labels": "lung"}, kept=tasks)
    write_inputs(inputs, anna=b"1" + scan[1:], bert=scan[1:] + b"1")
    (inputs / "carl.nii").unlink()  # no longer readable, not another one
    with pytest.raises(UserError, match="were made from other inputs") as e:
        Provenance(out).plan([], {"labels": "lung"}, kept=tasks)
    assert [task.name in str(e.value) for task in tasks] == [True, True, False]
    inside = scan[: 40 * BLOCK] + bytes([1]) * 4 * BLOCK + scan[44 * BLOCK :]
    write_inputs(inputs, anna=inside, bert=scan)
    with pytest.raises(UserError, match=r"anna\.nii: another input"):
        Provenance(out).plan([], {"labels": "lung"}, kept=tasks)
    write_inputs(inputs, anna=scan[1:], bert=scan)
    with pytest.raises(UserError, match=r"anna\.nii: another input"):
        Provenance(out).plan([], {"labels": "lung"}, kept=tasks)


def test_inputs_of_records_without_them_are_not_compared(tmp_path):
    write_inputs(tmp_path / "in", anna=b"scan")
    line = {"mask": "anna.nii", "made_with": {"labels": "lung"}}
    (tmp_path / RECORD).write_text(json.dumps(line) + "\n")
    tasks = tasks_from(tmp_path / "in", tmp_path, "anna.nii")
    Provenance(tmp_path).plan([], {"labels": "lung"}, kept=tasks)


def test_a_series_is_another_one_if_its_files_are(tmp_path):
    folder, out = tmp_path / "series", tmp_path / "out"
    write_series(folder, array=np.zeros((3, 8, 8), np.int16))
    out.mkdir()
    task = PredictionTask(folder, out / "series.nii", True)
    make(out, [task], labels="lung")
    (folder / "notes.txt").write_text("of the reader")
    (folder / "Segmentation.seg.nrrd").touch()
    Provenance(out).plan([], {"labels": "lung"}, kept=[task])
    for file in folder.iterdir():
        file.unlink()
    write_series(folder, array=np.zeros((3, 8, 8), np.int16))
    with pytest.raises(UserError, match="other inputs"):
        Provenance(out).plan([], {"labels": "lung"}, kept=[task])


def test_a_volume_is_another_one_if_its_voxels_are(tmp_path):
    """They may be in a file beside the header, which stays the same."""
    image = sitk.Image((4, 4, 3), sitk.sitkInt16)
    task = PredictionTask(tmp_path / "in.mhd", tmp_path / "in.mha", True)
    sitk.WriteImage(image, str(task.source))
    make(tmp_path, [task], labels="lung")
    Provenance(tmp_path).plan([], {"labels": "lung"}, kept=[task])
    sitk.WriteImage(image + 1, str(task.source))
    with pytest.raises(UserError, match="another input than"):
        Provenance(tmp_path).plan([], {"labels": "lung"}, kept=[task])
