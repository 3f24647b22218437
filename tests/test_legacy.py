"""Runs outlive versions: what lungseg_jax 0.1 wrote is read, used and resumed.

tests/legacy/v0.1 was written by version 0.1: a finished run, a bundle exported from it, its
data, and their prepared form (tfds).
"""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import lungseg_jax as ls
from lungseg_jax.checkpointing.checkpoints import restore_variables, saved_steps
from lungseg_jax.checkpointing.manifest import read_manifest
from lungseg_jax.data import dataset as dataset_module
from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.evaluation.evaluator import evaluate
from lungseg_jax.inference.ensemble.bundle import verify_bundle
from lungseg_jax.inference.ensemble.members import EVERY
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.trained import abstract_members
from lungseg_jax.reporting.run_page import rewrite_run_page
from lungseg_jax.training import knobs
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run

LEGACY = Path(__file__).parent / "legacy" / "v0.1"


@pytest.fixture
def legacy(tmp_path, monkeypatch):
    """A copy in the working directory: the run names its data by relative paths.

    `unfinished` is the run as it was after step 10 of 12, with the checkpoint of step 8.
    """
    folder = tmp_path / "v0.1"
    shutil.copytree(LEGACY, folder)
    shutil.copytree(folder / "run", folder / "unfinished")
    shutil.rmtree(folder / "unfinished/checkpoints/12")
    for name in ("average.safetensors", "tuning.json", "evaluation.json"):
        (folder / "unfinished" / name).unlink()
    metrics = folder / "unfinished/metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-2]))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def config():
    """The configuration that the run was started with."""
    c = ls.default_config()
    c.update_from_flattened_dict(knobs.before_values())
    c.name, c.cache_dir, c.data.dir, c.data.image_size = "legacy", "cache", "data", 32
    c.data.test_fraction = c.data.validation_fraction = 0.2
    c.model.name, c.model.filters = "conv", 1
    c.train.total_steps, c.train.batch_size, c.schedule.cycles = 12, 2, 3
    c.train.save_every = c.train.validate_every = 5
    c.train.log_every = 2
    c.train.population_stats = True  # the default of then
    return c


def slices():
    return [read_slice(pair) for pair in find_pairs(Path("data"))]


def test_verify_finds_both_intact(legacy):
    assert verify_run(RunFolder("run")) == []
    assert verify_run(RunFolder("unfinished")) == []
    assert "model.safetensors" in verify_bundle(Path("bundle"))


def test_evaluate_gives_the_scores_that_were_written(legacy):
    run = Run.open(RunFolder("run"))
    test = set(run.record["split"]["test"])
    evaluation = evaluate(
        load_run(run, EVERY),
        (s for s in slices() if s.name in test),
        len(test),
    )
    written = run.evaluation
    assert evaluation["postprocessing"]["chosen"] == "two_largest"  # as chosen then
    for name, scores in {**written["members"], "": written["ensemble"]}.items():
        again = evaluation["members"][name] if name else evaluation["ensemble"]
        for key in ("iou_pooled", "dice_mean", "iou_min"):
            assert again[key] == pytest.approx(scores[key], abs=2e-3), (name, key)


def test_predict_agrees_between_run_and_bundle(legacy):
    image = slices()[0].image
    by_run, by_bundle = ls.load("run")(image), ls.load("bundle")(image)
    assert by_run.mask.any() and not by_run.mask.all()
    np.testing.assert_array_equal(by_run.mask, by_bundle.mask)
    np.testing.assert_allclose(by_run.probability, by_bundle.probability, atol=1e-6)
    assert by_run.review == by_bundle.review is not None


def test_the_page_is_written_again_where_the_data_are_now(legacy, monkeypatch):
    with pytest.raises(ls.UserError, match="1 of 3 snapshots"):
        rewrite_run_page(Path("unfinished"))
    shutil.move("data", "moved")
    with pytest.raises(ls.UserError, match="data does not exist"):
        rewrite_run_page(Path("run"))
    page = rewrite_run_page(Path("run"), Path("moved"))
    assert page == Path("run/report/index.html")
    assert "legacy: conv U-Net on data" in page.read_text()
    next(Path("moved/2d_masks").iterdir()).touch()  # the content is what counts
    rewrite_run_page(Path("run"), Path("moved"))
    names = sorted(path.name for path in Path("moved/2d_masks").iterdir())
    shutil.copy(f"moved/2d_masks/{names[0]}", f"moved/2d_masks/{names[1]}")
    with pytest.raises(ls.UserError, match="moved is not what run was trained on"):
        rewrite_run_page(Path("run"), Path("moved"))


def test_resume_ends_where_the_uninterrupted_run_ended(legacy):
    ls.run_experiment(config(), "unfinished")
    assert saved_steps(Path("unfinished/checkpoints")) == [4, 8, 12]
    like = abstract_members(config().model.to_dict(), channels=1)
    ends = [
        restore_variables(Path(name, "checkpoints"), 12, like)
        for name in ("run", "unfinished")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), *ends)
    names = [
        read_manifest(Path(name, "checkpoints/12/seal/metadata"), 12)["arrays"].keys()
        for name in ("run", "unfinished")
    ]
    assert names[0] == names[1]  # the optimizer's state too
    rows = [
        [(row["step"], row["kind"]) for row in RunFolder(name).read_metrics()]
        for name in ("run", "unfinished")
    ]
    assert rows[0] == rows[1]


def test_the_prepared_dataset_is_used_again(legacy, monkeypatch):
    monkeypatch.setattr(
        dataset_module, "_prepare", lambda *_: pytest.fail("it was prepared again")
    )
    dataset = load_dataset(Path("data"), cache=Path("cache").absolute())
    for original, prepared in zip(slices(), dataset.slices(dataset.names), strict=True):
        np.testing.assert_array_equal(original.image, prepared.image)
        np.testing.assert_array_equal(original.mask, prepared.mask)


def test_a_knob_removed_since_is_named_with_the_version_that_wrote_it(
    legacy, monkeypatch
):
    kept = tuple(k for k in knobs.KNOBS if k.name != "train.outlier_knee")
    monkeypatch.setattr(knobs, "KNOBS", kept)
    with pytest.raises(ls.UserError, match="train.outlier_knee") as caught:
        Run.open(RunFolder("run"))
    assert "0.1.0" in caught.value.rule
