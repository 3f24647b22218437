"""Deep ensembles: members of several runs, tuned and scored together."""

import dataclasses

import numpy as np
import pytest
from tiny_run import tiny_config

from lungseg_jax import reporting
from lungseg_jax.evaluation.deep_ensemble import combine_runs
from lungseg_jax.experiment import run_experiment
from lungseg_jax.inference.ensemble.bundle import load_bundle, write_bundle
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.views import AS_IT_IS, LEFT_TO_RIGHT
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def runs(finished_run, tiny_cache, tmp_path_factory):
    """Two runs that differ in their seed."""
    other = tmp_path_factory.mktemp("runs") / "other"
    c = tiny_config(tiny_cache)
    c.seed = 1
    with pytest.MonkeyPatch.context() as m:
        # Figures would take longer than the training.
        m.setattr(reporting.run_page, "write_report", lambda *args, **kwargs: None)
        run_experiment(c, str(other))
    return [Run.open(finished_run), Run.open(RunFolder(other))]


@pytest.fixture(scope="module")
def combined(runs):
    return combine_runs(runs, "last")


def test_members_are_scored_as_in_their_own_runs(runs, combined):
    trained, evaluation = combined
    assert list(trained.members) == list(evaluation["members"])
    assert list(trained.views.values()) == [LEFT_TO_RIGHT, AS_IT_IS]
    scores = list(evaluation["members"].values())[-1]  # sees slices as in its own run
    own = list(runs[-1].evaluation["members"].values())[-1]
    assert scores["iou_pooled"] == own["iou_pooled"]
    one, two = (list(run.evaluation["members"].values())[-1] for run in runs)
    assert one["iou_pooled"] != two["iou_pooled"]


def test_it_is_tuned_together(runs, combined):
    trained, _ = combined
    assert trained.tuning["n"] == len(runs[0].record["split"]["validation"])
    assert trained.settings().choice == "all"
    assert trained.settings().temperature not in (
        run.tuning["choices"]["last"]["temperature"] for run in runs
    )


def test_its_bundle_predicts_the_mean(runs, combined, slices, tmp_path):
    trained, evaluation = combined
    record = {
        "name": "two",
        "data": runs[0].record["data"],
        "versions": runs[0].record["versions"],
        "evaluation": evaluation,
    }
    write_bundle(tmp_path / "bundle", trained, record)
    image = next(slices(1)).image
    loaded = load_bundle(tmp_path / "bundle")
    assert list(loaded.members) == list(trained.members)
    together = LungSegmenter(dataclasses.replace(loaded, tuning={}))(image)
    apart = []
    for run, view in zip(runs, (LEFT_TO_RIGHT, AS_IT_IS), strict=True):
        own = load_run(run, "last")
        own = dataclasses.replace(
            own, views=dict.fromkeys(own.members, view), tuning={}
        )
        apart.append(LungSegmenter(own)(image).probability)
    mean = np.mean(apart, axis=0)
    np.testing.assert_allclose(together.probability, mean, atol=1e-6)


def test_refuses_two_runs_of_one_name(finished_run):
    run = Run.open(finished_run)
    with pytest.raises(UserError, match="the same name"):
        combine_runs([run, run], "last")


def test_refuses_runs_on_another_split(runs):
    first, other = runs
    split = other.record["split"]
    swapped = split | {"train": split["test"], "test": split["train"]}
    other = dataclasses.replace(other, record=dict(other.record) | {"split": swapped})
    with pytest.raises(UserError, match="differ in:\n.*split"):
        combine_runs([first, other], "last")


def test_refuses_another_threshold(runs):
    first, other = runs
    config = other.config.copy_and_resolve_references()
    config.evaluate.threshold = 0.7
    with pytest.raises(UserError, match="differ in:\n.*threshold"):
        combine_runs([first, dataclasses.replace(other, config=config)], "last")
