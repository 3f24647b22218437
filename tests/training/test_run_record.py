"""A run owns its folder: other runs are refused, and it can only be made longer."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
from tiny_run import (
    built_once,
    stop_after,
    tiny_config,
    untimed_rows,
    variables_at,
)

from lungseg_jax import experiment
from lungseg_jax.checkpointing.checksums import has_valid_checksum
from lungseg_jax.checkpointing.local_checkpoints import LocalCheckpoints
from lungseg_jax.experiment import run_experiment
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import write_json
from lungseg_jax.training import config, knobs, run_data, run_extension, run_record
from lungseg_jax.training.knob import Knob
from lungseg_jax.training.run import SCHEMA_VERSION, Run
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.scaling import separate_norms
from lungseg_jax.training.verification import verify_run

LONGER = {"train.total_steps": 12, "schedule.cycles": 3}
EIGHT_STEPS = {"train.total_steps": 8}


@pytest.mark.parametrize(
    "change,message",
    [
        ({"model.filters": 2}, "model.filters: 1 -> 2"),
        ({"model.name": "inception"}, "model.name: conv -> inception"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"schedule.peak": 1e-3}, "schedule.peak: 0.005 -> 0.001"),
        ({"data.phantom_seed": 1}, "data.phantom_seed: 0 -> 1"),
    ],
)
def test_refuses_the_folder_of_another_run(finished_run, tiny_cache, change, message):
    def times():
        return {p: p.stat().st_mtime_ns for p in finished_run.path.rglob("*")}

    before = times()
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        run_experiment(tiny_config(tiny_cache, **change), str(finished_run.path))
    assert times() == before


def test_an_option_added_since_is_as_the_run_was_started(
    copied_run, tiny_cache, monkeypatch, capsys
):
    """The command that started a run resumes it, though a new default is another one.

    So does one whose recipe has another name, as those with a variant had.
    """
    added = Knob("train.added", 2, "added since", (0, 9), before=0)
    monkeypatch.setattr(knobs, "KNOBS", (*knobs.KNOBS, added))
    written = copied_run.config.read_text()
    scores = json.loads(copied_run.evaluation.read_text())
    renamed = tiny_config(tiny_cache, name="renamed")
    assert run_experiment(renamed, str(copied_run.path)) == scores
    assert "before these options existed: train.added=0" in capsys.readouterr().out
    assert copied_run.config.read_text() == written
    with pytest.raises(UserError, match="train.added: 0 -> 5"):
        run_experiment(
            tiny_config(tiny_cache, **{"train.added": 5}), str(copied_run.path)
        )


@pytest.mark.parametrize("damaged", ["config", "run"])
def test_a_damaged_run_is_refused_before_its_files_are_used(
    damaged, copied_run, tiny_cache, capsys
):
    file = getattr(copied_run, damaged)
    content = json.loads(file.read_text())
    content.pop("augment", None)  # as of a run that did not know them
    content["scaled_to_devices"] = "2"
    file.write_text(json.dumps(content))
    c = tiny_config(tiny_cache, **{"train.batch_per_device": 3})
    with pytest.raises(UserError, match="was changed since"):
        run_experiment(c, str(copied_run.path))
    assert "before these options existed" not in capsys.readouterr().out


def test_a_run_keeps_the_split_that_it_was_started_with(
    copied_run, tiny_cache, monkeypatch
):
    """Another version may have drawn it otherwise; its test slices stay unseen."""
    record = json.loads(copied_run.run.read_text())
    split = record["split"]
    split["train"][0], split["test"][0] = split["test"][0], split["train"][0]
    write_json(copied_run.run, run_record.versioned(record))
    used = []
    monkeypatch.setattr(
        experiment, "_train", lambda c, folder, data, *_: used.append(data)
    )
    monkeypatch.setattr(experiment, "_finish", lambda *_: None)
    run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert used[0].split == split
    monkeypatch.setattr(experiment, "load_run_data", None)  # not needed for this
    with pytest.raises(UserError, match="holds a run with other settings"):
        c = tiny_config(tiny_cache, **{"data.phantom_slices": 12})
        run_experiment(c, str(copied_run.path))


def test_options_without_effect_are_refused_only_in_a_new_run(
    finished_run, tiny_cache, tmp_path
):
    c = tiny_config(tiny_cache, **{"schedule.name": "constant", "schedule.floor": 1e-4})
    with pytest.raises(UserError, match="schedule.floor=0.0001 would have no effect"):
        run_experiment(c, str(tmp_path / "run"))
    started = RunFolder(tmp_path / "interrupted")  # config.json is not written yet
    write_json(started.run, {})
    with pytest.raises(UserError, match="schedule.floor=0.0001 would have no effect"):
        run_experiment(c, str(started.path))
    with pytest.raises(UserError, match="schedule.floor: 0.0 -> 0.0001"):
        run_experiment(c, str(finished_run.path))


def test_refuses_a_folder_that_holds_something_else_before_it_draws_phantoms(
    tiny_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(experiment, "load_run_data", None)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty and does not hold a run"):
        run_experiment(tiny_config(tiny_cache), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_run_that_starts_while_the_data_are_read_is_left_as_it_is(
    finished_run, tiny_cache, tmp_path, monkeypatch
):
    folder, load = RunFolder(tmp_path / "run"), experiment.load_run_data

    def load_while_another_starts(*args, **options):
        data = load(*args, **options)
        shutil.copytree(finished_run.path, folder.path)
        return data

    monkeypatch.setattr(experiment, "load_run_data", load_while_another_starts)
    with pytest.raises(UserError, match="another process has just started a run"):
        run_experiment(tiny_config(tiny_cache, seed=1), str(folder.path))
    assert folder.config.read_text() == finished_run.config.read_text()
    assert folder.run.read_text() == finished_run.run.read_text()


@pytest.fixture
def optimized(monkeypatch):
    """Compile training steps as for users.

    Without optimization, those of two schedules are compiled into different kernels, which
    round differently.
    """
    compile_plainly = jax.stages.Lowered.compile
    options = {"xla_backend_optimization_level": 3}
    if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
        options["xla_cpu_use_fusion_emitters"] = True
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda self: compile_plainly(self, options)
    )


def test_an_extended_run_equals_one_that_was_longer_from_the_start(
    tiny_cache, tmp_path, plain_report, optimized
):
    extended = RunFolder(tmp_path / "extended")
    uninterrupted = RunFolder(tmp_path / "uninterrupted")
    longer = tiny_config(tiny_cache, **LONGER)
    run_experiment(tiny_config(tiny_cache, **EIGHT_STEPS), str(extended.path))
    with pytest.raises(UserError, match="cycles: 2 -> 3"):
        run_experiment(longer, str(extended.path))
    with built_once():
        evaluation = run_experiment(longer, str(extended.path), extend=True)
        assert evaluation == run_experiment(longer, str(uninterrupted.path))
    assert untimed_rows(extended) == untimed_rows(uninterrupted)
    for step in (4, 8, 12):
        jax.tree.map(
            np.testing.assert_array_equal,
            variables_at(extended, step),
            variables_at(uninterrupted, step),
        )
    assert verify_run(extended) == []


@pytest.mark.parametrize(
    "change,message",
    [
        ({"seed": 1, "train.total_steps": 14}, "cannot change other settings:\n  seed"),
        ({"train.total_steps": 14}, "change the learning rates"),  # the same two cycles
        ({"train.total_steps": 4, "schedule.cycles": 1}, "7 steps are done"),
    ],
)
def test_refuses_an_invalid_extension(finished_run, tiny_cache, change, message):
    before = finished_run.config.read_text(), finished_run.run.read_text()
    c = tiny_config(tiny_cache, **change)
    with pytest.raises(UserError, match=message):
        run_experiment(c, str(finished_run.path), extend=True)
    assert (finished_run.config.read_text(), finished_run.run.read_text()) == before


@pytest.mark.parametrize(
    "cycles,steps,remedy",
    [
        (3, 10, "--config.schedule.cycles=3 --config.train.total_steps=11."),
        (2, 9, "--config.schedule.cycles=3 --config.train.total_steps=11."),
        (5, 20, "--config.schedule.cycles=5 --config.train.total_steps=18."),
        (
            1,
            6,
            "continue it with --config.schedule.cycles=2 --config.train.total_steps=7",
        ),
    ],
)
def test_the_remedy_of_a_wrong_length_has_numbers(
    cycles, steps, remedy, finished_run, tiny_cache
):
    changes = {"schedule.cycles": cycles, "train.total_steps": steps}
    with pytest.raises(UserError) as e:
        run_experiment(
            tiny_config(tiny_cache, **changes), str(finished_run.path), extend=True
        )
    assert remedy in e.value.remedy


def test_the_remedy_of_a_length_is_of_whole_cycles():
    c = config.default_config()
    c.schedule.cycles, c.train.total_steps = 1, 72_000
    assert "total_steps=144000" in run_extension._remedy_of_length(c, 2)


def test_lengths_without_a_remedy_in_numbers():
    c = config.default_config()
    c.schedule.cycles, c.schedule.growth, c.train.total_steps = 1, 0.01, 30
    assert "set both" in run_extension._remedy_of_length(c, 400)  # cycles of no step
    c.schedule.growth, c.train.batch_per_device = 1.0, 8
    assert "set both" in run_extension._remedy_of_length(c, 2)


def test_an_extension_keeps_the_snapshots_of_a_constant_rate(tiny_cache, tmp_path):
    def constant(steps):
        return tiny_config(
            tiny_cache, **{"schedule.name": "constant", "train.total_steps": steps}
        )

    folder = RunFolder(tmp_path / "constant")
    stop_after(5, constant(7), folder)
    with pytest.raises(UserError, match="the snapshots of steps that are done"):
        stop_after(6, constant(12), folder, extend=True)  # at 6 and 12 instead of 4
    stop_after(6, constant(8), folder, extend=True)  # at 4 and 8


def test_a_mistaken_extension_can_be_taken_back(
    copied_run, finished_run, tiny_cache, plain_report
):
    """Ten times as long as intended, and stopped by a disk without room."""

    def no_room(*args, **kwargs):
        raise UserError("no room")

    scores = copied_run.evaluation.read_text()
    changes = {"train.total_steps": 70, "schedule.cycles": 20, "train.log_every": 2}
    mistake = tiny_config(tiny_cache, **changes)
    with pytest.MonkeyPatch.context() as m:
        # 7 is not a multiple of the cycle's length.
        m.setattr(run_extension.np, "allclose", lambda *a, **k: True)
        m.setattr(LocalCheckpoints, "check_room", no_room)
        with pytest.raises(UserError, match="no room"):
            run_experiment(mistake, str(copied_run.path), extend=True)
    assert copied_run.evaluation.read_text() == scores and copied_run.page.exists()
    with pytest.MonkeyPatch.context() as m:
        m.setattr(run_extension.np, "allclose", lambda *a, **k: True)
        # Also with other `log_every`, which changes only what is printed.
        before = tiny_config(tiny_cache, **{"train.log_every": 5})
        evaluation = run_experiment(before, str(copied_run.path))
    assert evaluation == json.loads(scores)
    assert untimed_rows(copied_run) == untimed_rows(finished_run)


def test_extra_phantoms_belong_to_the_identity_of_a_run(
    tiny_cache, tmp_path, monkeypatch
):
    c, folder = tiny_config(tiny_cache, **{"data.extra_phantoms": 3}), tmp_path / "run"
    stop_after(1, c, RunFolder(folder))
    extra = Run.open(RunFolder(folder)).record["extra"]
    assert len(extra["sha256"]) == 6
    assert len(Run.open(RunFolder(folder)).trained_on(extra["sha256"])) == 3
    drawn = run_data._load_extra_phantoms(c, tiny_cache)
    checked = dataclasses.replace(drawn.checked, fingerprint="of another version")
    redrawn = dataclasses.replace(drawn, checked=checked)
    monkeypatch.setattr(run_data, "_load_extra_phantoms", lambda *_: redrawn)
    with pytest.raises(UserError, match="the set of extra phantoms has changed"):
        run_experiment(c, str(folder))


def test_refuses_to_extend_without_a_run(tiny_cache, tmp_path):
    with pytest.raises(UserError, match="does not hold a run"):
        run_experiment(tiny_config(tiny_cache), str(tmp_path / "typo"), extend=True)


def test_norms_of_each_device_need_as_many_devices(tiny_cache, tmp_path, monkeypatch):
    c, folder = tiny_config(tiny_cache, **{"model.bn_per_device": True}), tmp_path / "a"
    stop_after(3, c, RunFolder(folder))
    assert Run.open(RunFolder(folder)).record["norms"] == 1
    with monkeypatch.context() as m:
        m.setattr(run_record, "separate_norms", lambda c: 3)
        with pytest.raises(UserError, match="of each of 1 devices") as e:
            run_experiment(c, str(folder))
        assert "as many devices" in e.value.rule
    stop_after(5, c, RunFolder(folder))
    assert separate_norms(tiny_config(tiny_cache)) == 1
    monkeypatch.setattr(device_mesh, "devices_for", lambda size: jax.devices() * size)
    assert separate_norms(c) == 3 * len(jax.devices())


def test_run_json_records_the_knobs_of_memory(finished_run):
    record = json.loads(finished_run.run.read_text())
    assert record["memory"] == {
        "train.accumulate": 1,
        "model.remat": False,
        "model.precision": "default",
    }


def test_files_of_a_run_have_a_schema_version_and_a_checksum(finished_run):
    for file in (finished_run.run, finished_run.tuning, finished_run.evaluation):
        content = json.loads(file.read_text())
        assert content["schema_version"] == SCHEMA_VERSION
        assert has_valid_checksum(content)
    written = json.loads(finished_run.config.read_text())
    assert written["schema_version"] == SCHEMA_VERSION
