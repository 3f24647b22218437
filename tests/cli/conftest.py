"""Commands, in processes of their own or in that of the tests, and a run to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import run_command  # of tests/resilience/

ROOT = Path(__file__).parents[2]
TINY_RECIPE = [
    "--config=configs/smoke.py",
    "--config.model.name=conv",  # compiles in a third of the time
    "--config.model.filters=2",
    "--config.model.levels=2",
    "--config.train.total_steps=12",
    "--config.data.image_size=32",
    "--config.data.phantom_slices=12",
]


@pytest.fixture(scope="session")
def start(shared_folder):
    """`start(*words, cwd=, cache=, code=, **environment)` starts a command.

    With `code`, a program that ends in `lungseg_jax.__main__.main()`.
    """

    def start(*words, cwd=ROOT, cache=shared_folder / "cache", code="", **environment):
        program = ["-c", code] if code else ["-m", "lungseg_jax"]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            cwd=cwd,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def finish():
    """`finish(process)` waits for a command and returns it with its output."""

    def finish(process):
        stdout, stderr = process.communicate(timeout=300)
        return subprocess.CompletedProcess(
            process.args, process.returncode, stdout, stderr
        )

    return finish


@pytest.fixture(scope="session")
def lungseg(start, finish):
    """`lungseg(*words, cwd=, cache=, **environment)` runs a command."""
    return lambda *words, **options: finish(start(*words, **options))


@pytest.fixture
def lungseg_here(shared_folder, monkeypatch):
    """`lungseg`, in the process of the tests, which saves the seconds of starting one."""

    def run(name, *words, cwd=ROOT, cache=shared_folder / "cache"):
        with monkeypatch.context() as m:
            m.chdir(cwd)
            m.setenv("XDG_CACHE_HOME", str(cache))
            return run_command(name, [str(word) for word in words], monkeypatch)

    return run


@pytest.fixture(scope="session")
def tiny_recipe():
    """The words that make `train` end in seconds."""
    return TINY_RECIPE


@pytest.fixture(scope="session")
def trained_run(lungseg, shared_folder):
    """A run of the tiny recipe, trained in a folder outside the checkout."""
    from lungseg_jax.runtime.locks import exclusive_lock

    folder = shared_folder / "elsewhere"
    with exclusive_lock(shared_folder / "lock"):
        if not (folder / "output").exists():
            folder.mkdir(exist_ok=True)
            # Without the flags of tests/conftest.py: compiled as for users.
            done = lungseg("train", *TINY_RECIPE, cwd=folder, XLA_FLAGS="")
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "output").write_text(done.stdout)
    return folder / "runs/smoke-phantom"


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory) -> Path:
    """Three labelled phantom slices of 128x128 pixels."""
    from lungseg_jax.data.phantom import dataset

    folder = tmp_path_factory.mktemp("labelled")
    dataset.write_phantoms(folder, slices=3, seed=9, size=128)
    return folder
