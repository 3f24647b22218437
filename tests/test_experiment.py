"""The whole pipeline on tiny data: what it refuses, writes, repeats and repairs."""

import base64
import contextlib
import errno
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from tiny_run import (
    SNAPSHOTS,
    built_once,
    flip_bits_of_arrays,
    stop_after,
    tiny_config,
    untimed_rows,
    variables_at,
)

from lungseg_jax.data.pairs import find_pairs
from lungseg_jax.data.splits import split_names
from lungseg_jax.experiment import preview, run_experiment
from lungseg_jax.inference.ensemble.bundle import write_bundle
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import job
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import loop
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run

NAMES = [f"s{i}" for i in range(10)]


# --- refused before anything is compiled ---


def test_refuses_equal_images_in_different_splits(pair_folder, tiny_cache, tmp_path):
    folder = pair_folder(NAMES)
    split = split_names(NAMES, validation_fraction=0.1, test_fraction=0.2, seed=3)
    first, second = (
        folder / "2d_images" / f"{split[part][0]}.tif" for part in ("train", "test")
    )
    shutil.copy(first, second)
    c = tiny_config(tiny_cache)
    c.data.dir = str(folder)
    with pytest.raises(UserError, match=r"\(train\) = .* \(test\)"):
        run_experiment(c, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_refuses_a_batch_larger_than_the_training_split(tiny_cache, tmp_path):
    c = tiny_config(tiny_cache, **{"train.batch_size": 8})
    with pytest.raises(UserError, match="batch_size=8 is larger") as e:
        run_experiment(c, str(tmp_path / "run"))
    assert "batch_size=7" in e.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", ["2d_images/run", "2d_masks/a/run"])
def test_refuses_a_run_folder_among_the_slices(
    inside, pair_folder, tiny_cache, monkeypatch
):
    folder = pair_folder(NAMES)
    c = tiny_config(tiny_cache, **{"data.dir": str(folder)})
    with pytest.raises(UserError, match=f"not outside of .*{inside[:8]}"):
        run_experiment(c, str(folder / inside))
    assert not (folder / inside).exists()
    # `cd DIR; lungseg train --config.data.dir=.` makes DIR/runs.
    monkeypatch.chdir(folder)
    c.data.dir = "."
    stop_after(0, c, RunFolder("runs/run"))
    assert len(find_pairs(folder)) == len(NAMES)


def test_refuses_a_preview_among_the_slices(pair_folder, tiny_cache):
    folder = pair_folder(NAMES)
    c = tiny_config(tiny_cache, **{"data.dir": str(folder)})
    for name in ("2d_images", "2d_masks"):
        with pytest.raises(UserError, match=f"not outside of .*{name}"):
            preview(c, str(folder / name / "preview.png"))
    preview(c, str(folder / "preview.png"))
    assert len(find_pairs(folder)) == len(NAMES)


# --- the settings of JAX ---


def test_a_run_does_not_follow_the_settings_of_the_process(
    finished_run,
    tiny_cache,
    tmp_path,
    plain_report,
    monkeypatch,
    other_settings,
    recwarn,
):
    """It may be started in one process and continued, or scored, in another."""
    c, folder = tiny_config(tiny_cache), RunFolder(tmp_path / "run")
    monkeypatch.setattr(tiny_run, "_built", {})  # not of other settings
    with other_settings():
        stop_after(5, c, folder)
    monkeypatch.setattr(tiny_run, "_built", {})
    stop_after(6, c, folder)
    monkeypatch.setattr(tiny_run, "_built", {})
    with other_settings(), built_once():
        evaluation = run_experiment(c, str(folder.path))
        assert not verify_run(folder)
    assert evaluation == json.loads(finished_run.evaluation.read_text())
    assert untimed_rows(folder) == untimed_rows(finished_run)
    for step in SNAPSHOTS:
        jax.tree.map(
            np.testing.assert_array_equal,
            variables_at(folder, step),
            variables_at(finished_run, step),
        )
    assert not [str(w.message) for w in recwarn if "64" in str(w.message)]


# --- the files of a run ---


def test_the_run_folder_has_the_documented_files(finished_run):
    names = {p.name for p in finished_run.path.iterdir()}
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
    record = json.loads(finished_run.run.read_text())
    assert {name: len(names) for name, names in record["split"].items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(record["sha256"]) == 20
    tuning = json.loads(finished_run.tuning.read_text())
    assert (tuning["n"], tuning["stressed"]) == (1, 2)
    evaluation = json.loads(finished_run.evaluation.read_text())
    assert evaluation["threshold"] == 0.5 and evaluation["n"] == 2
    assert evaluation["members"].keys() == {"4", "7"}
    for scores in [*evaluation["members"].values(), evaluation["ensemble"]]:
        expected = {"iou_pooled", "iou_mean", "iou_min", "dice_mean", "dice_pooled"}
        assert expected <= scores.keys()
    page = finished_run.page.read_text()
    for name in ("curves", "scores", "expected", "risk", "calibration_image"):
        figure = f"{name}.png"
        png = (finished_run.report / figure).read_bytes()
        assert png.startswith(b"\x89PNG")
        assert base64.b64encode(png).decode() in page
    assert "http://" not in page and "https://" not in page


@pytest.mark.parametrize(
    "norm", ["group", pytest.param("instance", marks=pytest.mark.slow)]
)
def test_a_run_without_batch_statistics(norm, tiny_cache, tmp_path, plain_report):
    """Trained, resumed, averaged, scored, used and exported, at another depth."""
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"model.norm": norm, "model.levels": 3})
    stop_after(5, c, folder)
    evaluation = run_experiment(c, str(folder.path))
    assert evaluation["choices"].keys() >= {"all", "last", "average"}
    assert verify_run(folder) == []
    trained = load_ensemble(folder.path, members="all")
    average = load_ensemble(folder.path, members="average")
    for member in (*trained.members.values(), *average.members.values()):
        assert member.keys() == {"params"}
    versions = {"lungseg-jax": "0.2.0"}
    record = {"name": "run", "versions": versions, "evaluation": evaluation}
    record["data"] = {"variant": "phantom", "dtype": "int16", "domain": "HU"}
    record["data"]["fingerprint"] = "abc"
    write_bundle(tmp_path / "bundle", trained, record)
    image = np.random.default_rng(0).integers(-1000, 400, (48, 40)).astype(np.int16)
    by_run, by_bundle = (
        LungSegmenter(load_ensemble(path))
        for path in (folder.path, tmp_path / "bundle")
    )
    np.testing.assert_array_equal(
        by_run(image).probability, by_bundle(image).probability
    )


# --- run again ---


def test_a_finished_run_is_not_trained_again(finished_run, tiny_cache, monkeypatch):
    before = finished_run.metrics.read_text()
    monkeypatch.setattr(loop, "train", lambda *args: pytest.fail("trained again"))
    run_experiment(tiny_config(tiny_cache), str(finished_run.path))
    assert finished_run.metrics.read_text() == before


def test_a_lost_page_is_written_again(copied_run, tiny_cache):
    copied_run.page.unlink()
    run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert copied_run.page.exists()


@pytest.mark.parametrize(
    "content", ["[1]", "{}", '{"members": {}}', "\xff", "[" * 10**5]
)
def test_changed_scores_are_recomputed(
    copied_run, finished_run, tiny_cache, plain_report, content
):
    copied_run.evaluation.write_text(content)
    assert any("evaluation.json" in fault.what for fault in verify_run(copied_run))
    evaluation = run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert evaluation == json.loads(finished_run.evaluation.read_text())
    assert verify_run(copied_run) == []


def test_a_process_that_writes_no_scores_returns_them(
    copied_run, finished_run, tiny_cache, monkeypatch
):
    """In a job, the file of another process may not be seen at once."""
    copied_run.evaluation.unlink()
    monkeypatch.setattr(job, "is_primary", lambda: False)
    evaluation = run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert not copied_run.evaluation.exists()
    assert evaluation == json.loads(finished_run.evaluation.read_text())


def test_a_lost_tuning_and_a_damaged_average_are_made_again(
    copied_run, finished_run, tiny_cache, plain_report
):
    copied_run.tuning.unlink()
    copied_run.average.write_bytes(b"")
    run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert copied_run.tuning.read_text() == finished_run.tuning.read_text()
    assert copied_run.average.read_bytes() == finished_run.average.read_bytes()
    assert verify_run(copied_run) == []


def test_a_lost_snapshot_is_not_silently_left_out(copied_run, tiny_cache):
    shutil.rmtree(copied_run.checkpoints / "4")
    copied_run.evaluation.unlink()
    with pytest.raises(UserError, match="lost the snapshots 4"):
        run_experiment(tiny_config(tiny_cache), str(copied_run.path))


def test_a_lost_last_snapshot_is_not_silently_replaced(copied_run, capsys):
    shutil.rmtree(copied_run.checkpoints / "7")
    with pytest.raises(UserError, match="lost the snapshots 7"):
        load_ensemble(copied_run.path, members="last")
    assert list(load_ensemble(copied_run.path, members="4").members) == ["4"]
    assert "not finished" not in capsys.readouterr().out


def test_an_error_before_the_first_update_ends_the_job(
    tiny_cache, tmp_path, monkeypatch
):
    ended = []

    @contextlib.contextmanager
    def ending_together():
        try:
            yield
        except UserError as e:
            ended.append(str(e))
            raise

    def fail(*_):
        raise UserError("the checkpoints cannot be read.")

    monkeypatch.setattr(job, "ending_together", ending_together)
    monkeypatch.setattr(loop, "is_finished", fail)
    with pytest.raises(UserError, match="cannot be read"):
        run_experiment(tiny_config(tiny_cache), str(tmp_path / "run"))
    assert ended


def test_a_damaged_snapshot_is_not_silently_ensembled(copied_run, tiny_cache):
    flip_bits_of_arrays(copied_run, 4)
    copied_run.evaluation.unlink()
    with pytest.raises(UserError, match="checkpoints/4 is damaged"):
        run_experiment(tiny_config(tiny_cache), str(copied_run.path))
    assert list(load_ensemble(copied_run.path, members="last").members) == ["7"]
    assert not copied_run.evaluation.exists()


def test_a_failed_report_costs_neither_scores_nor_run(
    copied_run, tiny_cache, monkeypatch, capsys
):
    copied_run.page.unlink()
    copied_run.evaluation.unlink()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lungseg_jax.reporting.run_page.write_report", fail)
    assert run_experiment(tiny_config(tiny_cache), str(copied_run.path))["n"] == 2
    assert "the report could not be written" in capsys.readouterr().out
    assert copied_run.evaluation.exists() and not copied_run.page.exists()
