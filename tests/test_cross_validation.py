"""Each slice is scored once, by a run that was not trained on it."""

import csv
import json

import pytest
from tiny_run import PowerCut, built_once, tiny_config

from lungseg_jax import cross_validation
from lungseg_jax.cross_validation import cross_validate
from lungseg_jax.experiment import run_experiment
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

FOLDS = 2


@pytest.fixture
def c(tiny_cache):
    return tiny_config(tiny_cache, **{"train.total_steps": 3, "schedule.cycles": 1})


@pytest.fixture
def no_reports(plain_report):
    with built_once():
        yield


def test_every_slice_is_scored_by_the_run_that_tests_on_it(c, no_reports, tmp_path):
    result = cross_validate(c, str(tmp_path / "cv"), folds=FOLDS)
    assert json.loads((tmp_path / "cv/crossval.json").read_text()) == result
    tested = []
    for fold in result["folds"]:
        run = Run.open(RunFolder(tmp_path / "cv" / fold["run"]))
        split = run.record["split"]
        assert not {*split["test"]} & {*split["train"], *split["validation"]}
        assert fold["n"] == len(split["test"]) == 5
        assert fold["scores"] == run.evaluation["ensemble"]
        for name in split["test"]:
            expected = run.evaluation["slices"][name]
            assert result["slices"][name]["iou"] == expected["iou"]
            assert result["slices"][name]["expected_iou"] == expected["expected_iou"]
        tested += split["test"]
    assert list(result["slices"]) == tested and len({*tested}) == result["n"] == 10
    with (tmp_path / "cv/labels.csv").open(newline="") as file:
        assert {row["slice"] for row in csv.DictReader(file)} == {*tested}


def test_the_same_call_continues_what_was_stopped(c, no_reports, tmp_path, monkeypatch):
    whole = cross_validate(c, str(tmp_path / "whole"), folds=FOLDS)
    begun = []

    def stop_at_the_second(plan, workdir, **options):
        begun.append(workdir)
        if len(begun) == 2:
            raise PowerCut
        return run_experiment(plan, workdir, **options)

    with monkeypatch.context() as m:
        m.setattr(cross_validation, "run_experiment", stop_at_the_second)
        with pytest.raises(PowerCut):
            cross_validate(c, str(tmp_path / "cv"), folds=FOLDS)
    first = (tmp_path / "cv/fold_0/evaluation.json").stat().st_mtime_ns
    assert cross_validate(c, str(tmp_path / "cv"), folds=FOLDS) == whole
    assert (tmp_path / "cv/fold_0/evaluation.json").stat().st_mtime_ns == first


def test_folds_may_have_been_trained_one_by_one(c, no_reports, tmp_path):
    last = c.copy_and_resolve_references()
    last.data.test_fraction, last.data.fold = 1 / FOLDS, 1
    run_experiment(last, str(tmp_path / "fold_1"))
    before = (tmp_path / "fold_1/evaluation.json").stat().st_mtime_ns
    assert cross_validate(c, str(tmp_path), folds=FOLDS)["n"] == 10
    assert (tmp_path / "fold_1/evaluation.json").stat().st_mtime_ns == before


def test_folds_are_scaled_to_the_devices_of_the_first(c, no_reports, tmp_path):
    """As if another machine had trained it: with two devices instead of one."""
    c.train.batch_per_device = 1
    first = c.copy_and_resolve_references()
    first.data.test_fraction = 1 / FOLDS
    run_experiment(first, str(tmp_path / "fold_0"), scaled_to=2)
    cross_validate(c, str(tmp_path), folds=FOLDS)
    folds = [Run.open(RunFolder(tmp_path / f"fold_{i}")) for i in range(FOLDS)]
    assert [fold.record["scaled_to_devices"] for fold in folds] == [2, 2]
    assert [fold.config.train.batch_size for fold in folds] == [2, 2]
    assert len({fold.config.schedule.peak for fold in folds}) == 1


def test_files_of_others_are_not_replaced(c, tmp_path):
    mine = tmp_path / "labels.csv"
    mine.write_text("mine")
    (tmp_path / "fold_1").mkdir()  # of no run
    with pytest.raises(UserError, match="does not hold a cross-validation"):
        cross_validate(c, str(tmp_path), folds=FOLDS)
    with pytest.raises(UserError, match="labels.csv is a file"):
        cross_validate(c, str(mine), folds=FOLDS)
    assert mine.read_text() == "mine" and not (tmp_path / "fold_0").exists()


@pytest.mark.parametrize(
    "folds,changes,message",
    [
        (1, {}, "folds=1"),
        (2, {"data.fold": 1, "data.test_fraction": 0.5}, "data.fold=1"),
        (2, {"data.fold": 1, "data.test_fraction": 0.9}, "data.fold=1 is out of range"),
        (11, {}, "fold 10 of the test splits has none of the 10 slices"),
        (2, {"data.validation_fraction": 0.5}, "leave none to train on"),
    ],
)
def test_refuses_what_cannot_be_split_before_anything_is_trained(
    folds, changes, message, c, tmp_path
):
    c.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        cross_validate(c, str(tmp_path / "cv"), folds=folds)
    assert not (tmp_path / "cv").exists()


def test_refuses_weights_that_have_seen_a_slice_before_anything_is_trained(
    c, finished_run, tmp_path
):
    """Every slice is tested on by some fold."""
    c.init = str(finished_run.path)
    with pytest.raises(UserError, match="was trained on 7 images of the test split"):
        cross_validate(c, str(tmp_path / "cv"), folds=FOLDS)
    assert not (tmp_path / "cv").exists()


def test_refuses_a_batch_that_some_fold_cannot_fill_before_anything_is_trained(
    c, pair_folder, tmp_path
):
    """The patients differ in slices, and so do the training splits."""
    patients = "AAAAABCDEF"
    data = pair_folder(f"s{i}" for i in range(len(patients)))
    rows = [f"s{i},{patient}" for i, patient in enumerate(patients)]
    (data / "slices.csv").write_text("\n".join(["name,patient", *rows, ""]))
    c.data.dir, c.data.validation_fraction, c.train.batch_size = str(data), 0.0, 7
    with pytest.raises(UserError, match="batch_size=7 is larger than the training"):
        cross_validate(c, str(tmp_path / "cv"), folds=3)
    assert not (tmp_path / "cv").exists()
