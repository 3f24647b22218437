"""Weights & Biases and MLflow, by stand-ins that record what they are told."""

import sys
import types
from collections import defaultdict

import pytest

from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.trackers import TRACKERS

CONFIG = {"seed": 3, "data.window_hu": (-1000, 400)}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def row(step, loss, kind="train"):
    return {"step": step, "kind": kind, "loss": loss}


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the module; `runs` has the arguments and the log of each start."""
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**options):
        run = types.SimpleNamespace(
            options=options,
            id=options["id"] or "abc",
            logged=[],
            log=lambda values, step: run.logged.append((step, values)),
            finish=lambda: run.logged.append("finished"),
        )
        module.runs.append(run)
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases(wandb, folder):
    tracker = TRACKERS["wandb"](folder, CONFIG, 0)
    assert tracker.needs_history
    tracker.add(row(1, 0.5))
    tracker.add(row(2, 0.25, "snapshot"))
    tracker.close()
    assert not TRACKERS["wandb"](folder, CONFIG, 1).needs_history
    first, second = wandb.runs
    assert first.logged == [
        (1, {"train/loss": 0.5}),
        (2, {"snapshot/loss": 0.25}),
        "finished",
    ]
    assert first.options["config"] == CONFIG and first.options["name"] == "run"
    assert first.options["dir"] == str(folder.path)
    ids = [run.options["id"] for run in wandb.runs]
    assert ids == [None, "abc"] and second.options["resume"] == "allow"


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for the module, whose server keeps every value that it is sent."""
    module = types.ModuleType("mlflow")
    module.experiments, module.ended = {}, []
    module.params, module.metrics = defaultdict(dict), defaultdict(list)

    class MlflowClient:
        def get_experiment_by_name(self, name):
            number = module.experiments.get(name)
            return number and types.SimpleNamespace(experiment_id=number)

        def create_experiment(self, name):
            assert name not in module.experiments
            return module.experiments.setdefault(name, "1")

        def create_run(self, experiment_id, run_name):
            assert experiment_id == "1" and run_name
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name))

        def log_param(self, run_id, key, value):
            module.params[run_id][key] = value

        def log_metric(self, run_id, key, value, step):
            module.metrics[run_id, key].append(
                types.SimpleNamespace(step=step, value=value)
            )

        def get_metric_history(self, run_id, key):
            return list(module.metrics[run_id, key])

        def set_terminated(self, run_id):
            module.ended.append(run_id)

    module.MlflowClient = MlflowClient
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_mlflow(mlflow, folder):
    tracker = TRACKERS["mlflow"](folder, CONFIG, 0)
    assert mlflow.params == {"run": CONFIG}
    for step in (1, 2, 3):
        tracker.add(row(step, 1 / step))
    tracker.close()
    assert mlflow.ended == ["run"]
    resumed = TRACKERS["mlflow"](folder, CONFIG, 1)
    assert resumed.needs_history  # it may have died before the rows were sent
    for step in (1, 2, 3, 4):
        resumed.add(row(step, 1 / step))
    resumed.add(row(3, 0.1, "snapshot"))
    history = {key: [m.step for m in values] for key, values in mlflow.metrics.items()}
    assert history == {
        ("run", "train/loss"): [1, 2, 3, 4],
        ("run", "snapshot/loss"): [3],
    }


def test_runs_share_an_experiment(mlflow, folder, tmp_path):
    TRACKERS["mlflow"](folder, CONFIG, 0)
    TRACKERS["mlflow"](RunFolder(tmp_path / "other"), CONFIG, 0)
    assert mlflow.params.keys() == {"run", "other"}
