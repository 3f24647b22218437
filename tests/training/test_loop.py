"""The training loop on tiny data: which steps are saved, what is logged, how it resumes."""

import signal
from functools import partial
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_run import (
    SNAPSHOTS,
    flip_bits_of_arrays,
    stop_after,
    tiny_config,
    train,
    untimed_rows,
    variables_at,
)

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.manifest import read_manifest
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.runtime import signals
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import feeds, loop
from lungseg_jax.training.run_folder import RunFolder


def assert_equal_variables(folder, other, steps=SNAPSHOTS):
    for step in steps:
        jax.tree.map(
            np.testing.assert_array_equal,
            variables_at(folder, step),
            variables_at(other, step),
        )


def test_a_finished_run_keeps_exactly_its_snapshots(finished_run):
    assert checkpoints.saved_steps(finished_run.checkpoints) == list(SNAPSHOTS)


def test_a_stopped_run_keeps_its_newest_two_steps(tiny_cache, tmp_path):
    folder = RunFolder(tmp_path / "run")
    stop_after(3, tiny_config(tiny_cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2]
    stop_after(5, tiny_config(tiny_cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2, 4]
    stop_after(6, tiny_config(tiny_cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [4, 6]


def test_a_training_says_what_it_trains(tiny_cache, tmp_path, capsys):
    stop_after(1, tiny_config(tiny_cache), RunFolder(tmp_path / "run"))
    said = "parameters, receptive field 26 pixels; 7 slices at 32x32; 7 steps of 3"
    assert said in capsys.readouterr().out


def test_metrics_have_each_step_once_and_the_rate_falls_within_a_cycle(finished_run):
    rows = finished_run.read_metrics()
    steps = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6, 7]
    rate = {row["step"]: row["learning_rate"] for row in steps}
    assert rate[1] == rate[5] == pytest.approx(5e-3)
    assert rate[4] == min(rate[s] for s in (1, 2, 3, 4))
    assert rate[7] == min(rate[s] for s in (5, 6, 7))
    snapshots = {row["step"]: row for row in rows if row["kind"] == "snapshot"}
    assert snapshots.keys() == set(SNAPSHOTS)
    assert all(row["learning_rate"] == rate[step] for step, row in snapshots.items())


def test_statistics_are_re_estimated_on_request(finished_run, tiny_cache, tmp_path):
    """The weights of the first snapshot are the same, and its statistics differ."""
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"train.population_stats": True})
    train(c, folder)
    precise, running = variables_at(folder, 4), variables_at(finished_run, 4)
    jax.tree.map(np.testing.assert_array_equal, precise["params"], running["params"])
    difference = jax.tree.map(
        lambda a, b: float(abs(a - b).max()),
        precise["batch_stats"],
        running["batch_stats"],
    )
    assert min(jax.tree.leaves(difference)) > 1e-4


def test_extra_phantoms_are_not_in_re_estimated_statistics(
    tiny_cache, tmp_path, monkeypatch
):
    seen, parts = [], feeds.ResidentFeed.parts

    def seen_parts(feed, batches):
        seen.append(batches)
        return parts(feed, batches)

    monkeypatch.setattr(feeds.ResidentFeed, "parts", seen_parts)
    changes = {"train.population_stats": True, "data.extra_phantoms": 5}
    stop_after(5, tiny_config(tiny_cache, **changes), RunFolder(tmp_path / "run"))
    assert [batches.shape for batches in seen] == [(2, 3)]  # of 7 slices
    assert seen[0].max() < 7


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_resumed_run_equals_the_uninterrupted_one(
    finished_run, tiny_cache, tmp_path, step
):
    folder = RunFolder(tmp_path / "run")
    stop_after(step, tiny_config(tiny_cache), folder)
    train(tiny_config(tiny_cache), folder)
    assert_equal_variables(folder, finished_run)
    assert untimed_rows(folder) == untimed_rows(finished_run)


def test_a_streamed_run_that_is_resumed_equals_the_resident_one(
    finished_run, tiny_cache, tmp_path
):
    """Stopped in the middle of an epoch, and resumed there by the stream."""
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"data.placement": "streamed"})
    stop_after(3, c, folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2]
    train(c, folder)
    assert_equal_variables(folder, finished_run)
    assert untimed_rows(folder) == untimed_rows(finished_run)


def test_a_resumed_run_continues_the_running_median(tiny_cache, tmp_path):
    """Stopped in the middle of a cycle, with two steps a dispatch."""
    changes = {"train.outlier_factor": 2.0, "train.outlier_knee": 0.0}
    changes |= {"train.steps_per_dispatch": 2}
    folders = [RunFolder(tmp_path / name) for name in ("resumed", "uninterrupted")]
    stop_after(3, tiny_config(tiny_cache, **changes), folders[0])
    for folder in folders:
        train(tiny_config(tiny_cache, **changes), folder)
    assert_equal_variables(*folders)
    assert untimed_rows(folders[0]) == untimed_rows(folders[1])
    medians = [
        read_manifest(folder.checkpoints / "7" / "seal" / "metadata", 7)["arrays"][
            "loss_median"
        ]
        for folder in folders
    ]
    assert medians[0] == medians[1] and medians[0]["kind"] == "float32[]"


def test_several_steps_per_dispatch_are_the_same_steps(
    finished_run, tiny_cache, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    changes = {"train.steps_per_dispatch": 5, "train.log_every": 3}
    train(tiny_config(tiny_cache, **changes), folder)
    for step in SNAPSHOTS:
        jax.tree.map(  # another program, hence equal to rounding
            partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
            variables_at(folder, step),
            variables_at(finished_run, step),
        )
    single_steps = {
        row["step"]: row
        for row in finished_run.read_metrics()
        if row["kind"] == "train"
    }
    rows = [row for row in folder.read_metrics() if row["kind"] == "train"]
    # Every 3 steps, and before each save: every 2 steps, and at the snapshots.
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 7]
    for first, row in zip([0, 2, 3, 4, 6], rows, strict=True):
        losses = [single_steps[s]["loss"] for s in range(first + 1, row["step"] + 1)]
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_signal_does_not_end_the_last_save(tiny_cache, monkeypatch):
    written = []

    def wait():
        signals._handle(signal.SIGTERM, None)
        written.append(7)

    monkeypatch.setattr(signals, "_raises", True)
    monkeypatch.setattr(signals, "_received", None)
    finished = mock.Mock(config=tiny_config(tiny_cache)), mock.Mock(step=7)
    with pytest.raises(signals.Stopped, match="SIGTERM"):
        loop._loop(*finished, mock.Mock(), mock.Mock(), mock.Mock(wait=wait))
    assert written == [7]


def test_a_damaged_newest_step_is_trained_again(
    copied_run, finished_run, tiny_cache, capsys
):
    flip_bits_of_arrays(copied_run, 7)
    with pytest.raises(UserError, match="checkpoints/7 is damaged") as e:
        load_ensemble(copied_run.path)
    assert "--members=4" in e.value.remedy
    train(tiny_config(tiny_cache), copied_run)
    output = capsys.readouterr().out
    assert "checkpoints/7 is damaged" in output and "resuming after step 4" in output
    assert_equal_variables(copied_run, finished_run, steps=[7])
    assert untimed_rows(copied_run) == untimed_rows(finished_run)
