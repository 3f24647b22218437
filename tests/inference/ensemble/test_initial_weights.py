"""A training from the weights of another run, or of a bundle."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import flip_bits_of_arrays, stop_after, tiny_config, variables_at

from lungseg_jax.checkpointing.checksums import with_checksum
from lungseg_jax.experiment import run_experiment
from lungseg_jax.inference.ensemble.bundle import write_bundle
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

ALMOST_STILL = {"schedule.peak": 1e-7, "train.save_every": 1}


@pytest.fixture
def config_from(tiny_cache):
    """`config_from(path, **changes)` returns a configuration that starts from a run."""

    def config_from(path, **changes):
        return tiny_config(tiny_cache, init=str(path), **changes)

    return config_from


def test_a_training_starts_from_the_last_network_of_a_run(
    config_from, finished_run, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    stop_after(1, config_from(finished_run.path, **ALMOST_STILL), folder)
    first, last = variables_at(folder, 1), variables_at(finished_run, 7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        first["params"],
        last["params"],
    )
    initial = Run.open(folder).record["initial"]
    assert initial["member"] == "7" and len(initial["sha256"]) == 64
    assert initial["trained_on"] == sorted(Run.open(finished_run).training_images)


def test_it_starts_from_a_bundle(config_from, finished_run, tmp_path):
    versions = {"lungseg-jax": "0.2.0"}
    record = {"name": "run", "versions": versions, "evaluation": None}
    record["data"] = {"variant": "phantom", "dtype": "int16", "domain": "HU"}
    record["data"]["fingerprint"] = "abc"
    write_bundle(tmp_path / "bundle", load_ensemble(finished_run.path), record)
    folder = RunFolder(tmp_path / "run")
    stop_after(1, config_from(tmp_path / "bundle", **ALMOST_STILL), folder)
    first, last = variables_at(folder, 1), variables_at(finished_run, 7)
    for a, b in zip(*map(jax.tree.leaves, (first["params"], last["params"]))):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert Run.open(folder).record["initial"]["trained_on"] is None


def test_a_resumed_run_needs_the_weights_no_more(config_from, copied_run, tmp_path):
    folder, c = RunFolder(tmp_path / "new"), config_from(copied_run.path)
    stop_after(3, c, folder)
    shutil.rmtree(copied_run.path)
    assert run_experiment(c, str(folder.path))["n"] == 2


def test_a_run_without_an_intact_checkpoint_starts_from_the_weights_again(
    config_from, copied_run, tmp_path, capsys
):
    folder, c = RunFolder(tmp_path / "new"), config_from(copied_run.path)
    stop_after(3, c, folder)
    before = variables_at(folder, 2)
    flip_bits_of_arrays(folder, 2)
    stop_after(3, c, folder)
    assert "Falling back" in "".join(capsys.readouterr())
    jax.tree.map(np.testing.assert_array_equal, before, variables_at(folder, 2))

    flip_bits_of_arrays(folder, 2)
    shutil.rmtree(copied_run.checkpoints / "7")
    copied_run.evaluation.unlink()  # it would say that a snapshot is lost
    with pytest.raises(UserError, match="from other weights"):
        run_experiment(c, str(folder.path))


def test_weights_that_changed_before_the_first_checkpoint_are_refused(
    config_from, copied_run, tmp_path
):
    folder, c = RunFolder(tmp_path / "new"), config_from(copied_run.path)
    stop_after(1, c, folder)  # nothing is saved
    shutil.rmtree(copied_run.checkpoints / "7")
    copied_run.evaluation.unlink()  # it would say that a snapshot is lost
    with pytest.raises(UserError, match="from other weights"):
        run_experiment(c, str(folder.path))


def test_another_network_is_refused(config_from, finished_run, tmp_path):
    c = config_from(finished_run.path, **{"model.filters": 2, "model.bn_momentum": 0.5})
    with pytest.raises(UserError, match="model.filters: 1 there, 2 here") as e:
        run_experiment(c, str(tmp_path / "run"))
    assert e.value.remedy.startswith("--config.model.filters=1; or train from scratch")
    assert not (tmp_path / "run").exists()


def test_a_network_with_other_channels_is_refused(config_from, finished_run, tmp_path):
    c = config_from(finished_run.path, **{"data.preprocessing": "seed"})
    with pytest.raises(UserError, match="data.preprocessing='hu', and not 'seed'") as e:
        run_experiment(c, str(tmp_path / "run"))
    assert e.value.rule.endswith("1 there, 3 here.")
    assert not (tmp_path / "run").exists()


def test_weights_that_have_seen_the_test_images_are_refused(
    config_from, finished_run, tmp_path
):
    c = config_from(finished_run.path, **{"data.split_seed": 4})
    with pytest.raises(UserError, match="2 images of the test split"):
        run_experiment(c, str(tmp_path / "run"))


def test_what_the_runs_before_were_trained_on_counts_too(
    config_from, finished_run, tmp_path
):
    second = RunFolder(tmp_path / "second")
    stop_after(5, config_from(finished_run.path, **{"data.phantom_seed": 1}), second)
    first, run = Run.open(finished_run), Run.open(second)
    digests = first.record["sha256"]
    assert first.trained_on(digests) == {*first.record["split"]["train"]}
    assert run.trained_on(digests) == first.trained_on(digests)
    c = config_from(second.path, **{"data.split_seed": 4})
    with pytest.raises(UserError, match="2 images of the test split"):
        run_experiment(c, str(tmp_path / "third"))


def test_a_run_that_does_not_record_what_its_weights_were_trained_on_is_resumed(
    config_from, finished_run, tmp_path
):
    folder, c = RunFolder(tmp_path / "new"), config_from(finished_run.path)
    stop_after(1, c, folder)  # nothing is saved
    record = json.loads(folder.run.read_text())
    del record["initial"]["trained_on"]
    folder.run.write_text(json.dumps(with_checksum(record)))
    stop_after(1, c, folder)
    assert Run.open(folder).training_images


def test_a_folder_without_weights_is_refused(config_from, tmp_path):
    with pytest.raises(UserError, match="not a run folder|does not"):
        run_experiment(config_from(tmp_path), str(tmp_path / "run"))
