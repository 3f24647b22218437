"""A run killed again and again ends exactly as one that was never killed."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import run_command
from victim import PLACES, locate

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run

ROOT = Path(__file__).parents[2]
# About how long each place takes on a slow machine.
SECONDS = collections.defaultdict(lambda: 0.5, start=5.0, compilation=1.0, report=1.0)
SETTINGS = [
    "--config=configs/smoke.py",
    "--config.model.name=conv",
    "--config.model.filters=1",
    "--config.model.levels=2",
    "--config.data.image_size=32",
    "--config.data.phantom_slices=12",
    "--config.train.total_steps=20",
    "--config.train.save_every=5",
    "--config.train.validate_every=10",
    "--config.train.log_every=3",
]


def run(script, folder, cache, *words):
    return subprocess.run(
        [sys.executable, *script, *words, *SETTINGS, f"--workdir={folder.path}"],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def content(folder):
    """A run without its times; a manifest has the SHA-256 of every array."""
    rows = folder.read_metrics()
    for row in rows:
        row.pop("steps_per_second", None)
    steps = checkpoints.saved_steps(folder.checkpoints)
    manifests = [
        json.loads((folder.checkpoints / str(s) / "seal/metadata").read_text())
        for s in steps
    ]
    evaluation = json.loads(folder.evaluation.read_text())
    return rows, steps, manifests, evaluation


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("uninterrupted") / "run")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(ROOT)
        m.setenv("XDG_CACHE_HOME", str(cache))
        done = run_command("train", [*SETTINGS, f"--workdir={folder.path}"], m)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, cache


def kill_and_resume(uninterrupted, tmp_path, kills, rng):
    """Kill and resume runs until `kills` were made; print where they hit."""
    reference, cache = uninterrupted
    hits = collections.Counter()
    runs = 0
    while hits.total() < kills:
        folder = RunFolder(tmp_path / f"run-{runs}")
        saved = 0
        while True:
            place = str(rng.choice(list(PLACES)))
            if hits.total() == kills:
                script, words = ["-m", "lungseg_jax.main"], []
            else:
                seconds = f"{rng.uniform(0, SECONDS[place]):.3f}"
                script, words = ["tests/resilience/victim.py"], [place, seconds]
            done = run(script, folder, cache, *words)
            newest = max(checkpoints.saved_steps(folder.checkpoints), default=0)
            assert newest >= saved  # a kill never loses a saved step
            saved = newest
            if done.returncode == 0:
                break
            assert done.returncode == -9, done.stdout + done.stderr
            hits[place] += 1
        assert verify_run(folder) == []
        for ours, theirs in zip(content(folder), content(reference), strict=True):
            assert ours == theirs
        assert folder.page.exists()
        runs += 1
    print(f"{kills} kills in {runs} runs: {dict(hits)}")


@pytest.mark.parametrize("place", [place for place in PLACES if PLACES[place]])
def test_places_are_functions_of_the_library(place):
    owner, name = locate(place)
    assert callable(getattr(owner, name))


def test_killed_twice(uninterrupted, tmp_path):
    kill_and_resume(uninterrupted, tmp_path, 2, np.random.default_rng(0))


@pytest.mark.slow
def test_killed_sixty_times(uninterrupted, tmp_path):
    kill_and_resume(uninterrupted, tmp_path, 60, np.random.default_rng(1))
