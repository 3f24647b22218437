"""The record of what the masks of a folder were made with."""

import pytest

from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.provenance import RECORD, Provenance
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


def test_a_line_that_was_cut_short_costs_no_other(tmp_path):
    anna, bert, carl = tasks_in(tmp_path, "anna.nii", "bert.nii", "carl.nii")
    make(tmp_path, [anna, bert], labels="lung")
    record = tmp_path / RECORD
    record.write_bytes(record.read_bytes()[:-9])
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
