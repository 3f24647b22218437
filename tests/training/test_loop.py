"""The whole loop on tiny data: what is saved, what is logged, what a resume gives."""

import base64
import errno
import json
import os
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax import experiment
from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.checkpoints import Checkpoints
from lungseg_jax.inference.ensemble.loading import load_run
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables
from lungseg_jax.reporting import report
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import config, loop, run_record
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def tiny(cache, **changes):
    c = config.default_config()
    c.name = "tiny"
    c.cache_dir = str(cache)
    c.data.phantom_slices = 10
    c.data.test_fraction = 0.2
    c.data.image_size = 32
    c.model.name = "conv"
    c.model.filters = 1
    c.train.total_steps = 7
    c.train.batch_size = 3
    c.train.save_every = 2
    c.train.validate_every = 3
    c.train.log_every = 1
    c.schedule.cycles = 2
    c.evaluate.batch_size = 2
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run") / "whole")
    experiment.run_experiment(tiny(cache), str(folder.path))
    return folder


def variables_of(folder, step):
    like = init_variables(make_model("conv", filters=1), channels=1, seed=0)
    return checkpoints.restore_variables(folder.checkpoints, step, like)


class Stop(Exception):
    """Stands for the power cut."""


def test_of_a_finished_run_exactly_the_snapshots_are_kept(finished):
    # 7 steps in 2 cycles: ends at 4 (3.5 rounded to even) and 7.
    assert checkpoints.saved_steps(finished.checkpoints) == [4, 7]


def test_a_stopped_run_keeps_its_newest_two_steps(cache, tmp_path):
    folder = RunFolder(tmp_path / "run")
    stop_after(3, tiny(cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2]
    stop_after(5, tiny(cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2, 4]
    stop_after(6, tiny(cache), folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [4, 6]


def test_run_folder_is_as_the_readme_says(finished):
    names = {p.name for p in finished.path.iterdir()}
    assert names == {
        "config.json",
        "run.json",
        "metrics.jsonl",
        "checkpoints",
        "average.safetensors",
        "tuning.json",
        "evaluation.json",
        "report",
    }
    run = json.loads(finished.run.read_text())
    assert {name: len(names) for name, names in run["split"].items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(run["sha256"]) == 20
    evaluation = json.loads(finished.evaluation.read_text())
    assert evaluation["threshold"] == 0.5 and evaluation["n"] == 2
    assert evaluation["members"].keys() == {"4", "7"}
    for scores in [*evaluation["members"].values(), evaluation["ensemble"]]:
        wanted = {"iou_pooled", "iou_mean", "iou_min", "dice_mean", "dice_pooled"}
        assert wanted <= scores.keys()
    page = (finished.report / "index.html").read_text()
    for name in ("curves", "scores", "expected", "risk", "calibration_image"):
        figure = f"{name}.png"
        png = (finished.report / figure).read_bytes()
        assert png.startswith(b"\x89PNG")
        assert base64.b64encode(png).decode() in page
    assert "http://" not in page and "https://" not in page


def test_metrics_have_each_step_once_and_the_rate_falls_within_a_cycle(finished):
    rows = finished.read_metrics()
    steps = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6, 7]
    rate = {row["step"]: row["learning_rate"] for row in steps}
    assert rate[1] == rate[5] == pytest.approx(5e-3)
    assert rate[4] == min(rate[s] for s in (1, 2, 3, 4))
    assert rate[7] == min(rate[s] for s in (5, 6, 7))
    snapshots = {r["step"]: r for r in rows if r["kind"] == "snapshot"}
    assert snapshots.keys() == {4, 7}
    assert all(r["learning_rate"] == rate[step] for step, r in snapshots.items())


def test_a_snapshot_has_population_statistics(finished, cache, tmp_path):
    """Without re-estimation the weights are the same and the statistics are not."""
    plain = RunFolder(tmp_path / "run")
    c = tiny(cache, **{"train.population_stats": False, "train.total_steps": 7})
    c.schedule.cycles = 2
    experiment.run_experiment(c, str(plain.path))
    ours, running = variables_of(finished, 4), variables_of(plain, 4)
    jax.tree.map(np.testing.assert_array_equal, ours["params"], running["params"])
    difference = jax.tree.map(
        lambda a, b: float(abs(a - b).max()),
        ours["batch_stats"],
        running["batch_stats"],
    )
    assert min(jax.tree.leaves(difference)) > 1e-4


def test_a_finished_run_is_not_trained_again(finished, cache, monkeypatch):
    def never(*args):
        raise AssertionError("trained again")

    before = finished.metrics.read_text()
    monkeypatch.setattr(loop, "train", never)
    experiment.run_experiment(tiny(cache), str(finished.path))
    assert finished.metrics.read_text() == before


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_stopped_and_resumed_is_the_run_that_was_never_stopped(
    finished, cache, tmp_path, stop
):
    folder = RunFolder(tmp_path / "run")
    stop_after(stop, tiny(cache), folder)
    experiment.run_experiment(tiny(cache), str(folder.path))
    for step in (4, 7):
        jax.tree.map(
            np.testing.assert_array_equal,
            variables_of(folder, step),
            variables_of(finished, step),
        )

    def content(rows):
        return [
            {k: v for k, v in row.items() if k != "steps_per_second"} for row in rows
        ]

    assert content(folder.read_metrics()) == content(finished.read_metrics())


@pytest.mark.parametrize(
    "change,words",
    [
        ({"model.filters": 2}, "model.filters: 1 -> 2"),
        ({"model.name": "inception"}, "model.name: conv -> inception"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"schedule.peak": 1e-3}, "schedule.peak: 0.005 -> 0.001"),
        ({"data.phantom_seed": 1}, "data.phantom_seed: 0 -> 1"),
    ],
)
def test_the_folder_of_another_run_is_refused(finished, cache, change, words):
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*")}
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        experiment.run_experiment(tiny(cache, **change), str(finished.path))
    assert {p: p.stat().st_mtime_ns for p in finished.path.rglob("*")} == before


def test_a_folder_that_holds_something_else_is_refused(cache, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty and holds no run"):
        experiment.run_experiment(tiny(cache), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_batch_larger_than_the_split_is_refused(cache, tmp_path):
    with pytest.raises(UserError, match="batch_size=8 is larger") as caught:
        experiment.run_experiment(
            tiny(cache, **{"train.batch_size": 8}), str(tmp_path / "run")
        )
    assert "batch_size=7" in caught.value.remedy
    assert not (tmp_path / "run").exists()


def test_a_loss_that_diverges_stops_the_run(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "bce", lambda logits, masks: jnp.full(3, jnp.nan))
    c = tiny(cache, **{"train.loss": "bce"})
    with pytest.raises(UserError, match="at step 1 the loss is nan") as e:
        experiment.run_experiment(c, str(tmp_path / "run"))
    run = json.loads((tmp_path / "run/run.json").read_text())
    names = e.value.rule.partition(": ")[2].rstrip(".").split(", ")
    assert len(names) == 3 and set(names) <= set(run["split"]["train"])
    assert not (tmp_path / "run/evaluation.json").exists()


def test_several_steps_in_one_dispatch_are_the_same_steps(finished, cache, tmp_path):
    folder = RunFolder(tmp_path / "run")
    c = tiny(cache, **{"train.steps_per_dispatch": 5, "train.log_every": 3})
    experiment.run_experiment(c, str(folder.path))
    for step in (4, 7):
        jax.tree.map(  # another program, so to rounding
            partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
            variables_of(folder, step),
            variables_of(finished, step),
        )
    one_by_one = {r["step"]: r for r in finished.read_metrics() if r["kind"] == "train"}
    rows = [row for row in folder.read_metrics() if row["kind"] == "train"]
    # Every 3 steps, and before each save: every 2 steps, and at the snapshots.
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 7]
    for first, row in zip([0, 2, 3, 4, 6], rows, strict=True):
        losses = [one_by_one[s]["loss"] for s in range(first + 1, row["step"] + 1)]
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_lost_snapshot_is_not_left_out_in_silence(copied, cache):
    shutil.rmtree(copied.checkpoints / "4")
    copied.evaluation.unlink()
    with pytest.raises(UserError, match="lost the snapshots 4"):
        experiment.run_experiment(tiny(cache), str(copied.path))


def test_a_lost_page_is_written_again(copied, cache):
    copied.page.unlink()
    experiment.run_experiment(tiny(cache), str(copied.path))
    assert copied.page.exists()


def stop_after(step, c, folder):
    """Runs until `step` updates were applied, and falls over."""
    with pytest.MonkeyPatch.context() as m:
        real = loop.batch_indices

        def indices(at, **kwargs):
            if at == step:
                raise Stop
            return real(at, **kwargs)

        m.setattr(loop, "batch_indices", indices)
        with pytest.raises(Stop):
            experiment.run_experiment(c, str(folder.path))


def flip_in_arrays(folder, step):
    """Bits all over the files that hold arrays, whichever of them Orbax reads."""
    files = list((folder.checkpoints / str(step) / "state").rglob("d/*"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        for i in range(50, len(content), 100):
            content[i] ^= 1
        file.write_bytes(content)


def test_a_damaged_newest_step_is_made_anew(copied, finished, cache, capsys):
    flip_in_arrays(copied, 7)
    with pytest.raises(UserError, match="checkpoints/7 is damaged") as e:
        load_run(copied)
    assert "--members=4" in e.value.remedy
    experiment.run_experiment(tiny(cache), str(copied.path))
    said = capsys.readouterr().out
    assert "checkpoints/7 is damaged" in said and "resuming after step 4" in said
    jax.tree.map(
        np.testing.assert_array_equal,
        variables_of(copied, 7),
        variables_of(finished, 7),
    )
    assert rows_of(copied) == rows_of(finished)


def test_a_damaged_snapshot_is_not_ensembled_in_silence(copied, cache):
    flip_in_arrays(copied, 4)
    copied.evaluation.unlink()
    with pytest.raises(UserError, match="checkpoints/4 is damaged"):
        experiment.run_experiment(tiny(cache), str(copied.path))
    assert list(load_run(copied, "last").members) == ["7"]
    assert not copied.evaluation.exists()


def rows_of(folder):
    rows = folder.read_metrics()
    for row in rows:
        row.pop("steps_per_second", None)
    return rows


def test_rows_that_the_disk_refuses_are_written_later(
    cache, finished, tmp_path, monkeypatch, capsys
):
    real, refused = RunFolder.append_metrics, []

    def append(self, rows):
        if 2 <= rows[-1]["step"] <= 5:
            refused.append(rows)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, rows)

    monkeypatch.setattr(RunFolder, "append_metrics", append)
    folder = RunFolder(tmp_path / "run")
    experiment.run_experiment(tiny(cache), str(folder.path))
    assert len(refused) > 3
    assert rows_of(folder) == rows_of(finished)
    assert capsys.readouterr().out.count("cannot be written") == 1


def test_a_report_that_fails_costs_neither_scores_nor_run(copied, cache, monkeypatch):
    copied.page.unlink()
    copied.evaluation.unlink()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_report", fail)
    assert experiment.run_experiment(tiny(cache), str(copied.path))["n"] == 2


LONGER = {"train.total_steps": 12, "schedule.cycles": 3}
EIGHT = {"train.total_steps": 8}


def test_a_run_that_is_extended_is_one_that_was_longer_from_the_start(cache, tmp_path):
    grown, whole = RunFolder(tmp_path / "grown"), RunFolder(tmp_path / "whole")
    experiment.run_experiment(tiny(cache, **EIGHT), str(grown.path))
    with pytest.raises(UserError, match="cycles: 2 -> 3"):
        experiment.run_experiment(tiny(cache, **LONGER), str(grown.path))
    evaluation = experiment.run_experiment(
        tiny(cache, **LONGER), str(grown.path), extend=True
    )
    assert evaluation == experiment.run_experiment(
        tiny(cache, **LONGER), str(whole.path)
    )
    assert rows_of(grown) == rows_of(whole)
    for step in (4, 8, 12):
        jax.tree.map(
            np.testing.assert_array_equal,
            variables_of(grown, step),
            variables_of(whole, step),
        )
    assert verify_run(grown) == []


@pytest.mark.parametrize(
    "change,words",
    [
        ({"seed": 1, "train.total_steps": 14}, "cannot change other settings:\n  seed"),
        ({"train.total_steps": 14}, "other learning rates"),  # the same two cycles
        ({"train.total_steps": 4, "schedule.cycles": 1}, "7 steps are done"),
    ],
)
def test_what_is_no_extension_is_refused(finished, cache, change, words):
    before = finished.config.read_text(), finished.run.read_text()
    with pytest.raises(UserError, match=words):
        experiment.run_experiment(
            tiny(cache, **change), str(finished.path), extend=True
        )
    assert (finished.config.read_text(), finished.run.read_text()) == before


@pytest.mark.parametrize("file", ["config.json", "run.json"])
def test_a_changed_record_is_refused(copied, cache, file):
    path = copied.path / file
    path.write_text(path.read_text().replace("32", "64", 1))
    with pytest.raises(UserError, match=f"{file} was changed since it was written"):
        load_run(copied)
    assert len(verify_run(copied)) > 0


def test_a_run_that_is_in_use_is_refused_with_who_has_it(copied, cache):
    with copied.claimed():
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
            experiment.run_experiment(tiny(cache), str(copied.path))
    experiment.run_experiment(tiny(cache), str(copied.path))
    assert not list(copied.path.glob(".lock"))


def test_verify_says_what_is_whole_and_names_each_fault(copied, capsys):
    assert verify_run(copied) == []
    flip_in_arrays(copied, 4)
    with copied.metrics.open("a") as f:
        f.write("{broken\n")
    shutil.rmtree(copied.checkpoints / "7")
    faults = [fault.what for fault in verify_run(copied)]
    assert "metrics.jsonl is damaged" in faults[0]
    assert "checkpoints/4 is damaged" in faults[1]
    assert "has lost 7" in faults[2]  # it was scored
    assert capsys.readouterr().out.count("DAMAGED") == len(faults) == 3


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[1]", b'{"a": 1}', b"[" * 100_000, b'{"step": 1']
)
def test_a_damaged_row_is_named_by_its_line(copied, line):
    rows = copied.metrics.read_bytes().splitlines(keepends=True)
    copied.metrics.write_bytes(b"".join([*rows[:2], line + b"\n", *rows[2:]]))
    with pytest.raises(UserError, match="line 3 of .* is damaged"):
        copied.read_metrics()


@pytest.mark.parametrize(
    "content", ["[1]", "{}", '{"members": {}}', "\xff", "[" * 10**5]
)
def test_scores_that_were_changed_are_made_anew(copied, finished, cache, content):
    copied.evaluation.write_text(content)
    assert any("evaluation.json" in fault.what for fault in verify_run(copied))
    again = experiment.run_experiment(tiny(cache), str(copied.path))
    assert again == json.loads(finished.evaluation.read_text())
    assert verify_run(copied) == []


def test_an_extension_that_was_a_mistake_can_be_taken_back(copied, finished, cache):
    """Typed ten times as long as was meant, and stopped by a disk without room."""
    scores = copied.evaluation.read_text()
    c = tiny(cache, **{"train.total_steps": 7, "schedule.cycles": 2})
    mistake = tiny(cache, **{"train.total_steps": 70, "schedule.cycles": 20})
    with pytest.MonkeyPatch.context() as m:
        m.setattr(run_record.np, "allclose", lambda *a, **k: True)  # 7 is no multiple
        m.setattr(Checkpoints, "check_room", fail)
        with pytest.raises(UserError, match="no room"):
            experiment.run_experiment(mistake, str(copied.path), extend=True)
    assert copied.evaluation.read_text() == scores and copied.page.exists()
    with pytest.MonkeyPatch.context() as m:
        m.setattr(run_record.np, "allclose", lambda *a, **k: True)
        assert experiment.run_experiment(c, str(copied.path)) == json.loads(scores)
    assert rows_of(copied) == rows_of(finished)


def fail(*args, **kwargs):
    raise UserError("no room")


def test_extend_without_a_run_is_refused(cache, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        experiment.run_experiment(tiny(cache), str(tmp_path / "typo"), extend=True)


def test_an_ensemble_of_an_unfinished_run_says_so(cache, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    stop_after(5, tiny(cache), folder)
    assert list(load_run(folder).members) == ["4"]
    assert "not finished: 1 of 2 snapshots" in capsys.readouterr().out
