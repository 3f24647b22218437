"""All commands: help, and one plain error for each mistake."""

import pytest

from lungseg_jax.__main__ import COMMANDS

RECIPE = "--config=configs/smoke.py"


@pytest.mark.parametrize(
    "name,words,message",
    [
        ("train", ["--config=configs/smok.py"], "no config file configs/smok.py"),
        ("train", ["--config=configs/conv.py:fast"], ":notebook, :full"),
        ("train", [RECIPE, "--config.train.totl_steps=3"], "train.total_steps"),
        ("train", [RECIPE, "--config.train.total_steps=many"], "total_steps=many"),
        ("train", [RECIPE, "--config.schedule.cycles=99"], "at least one step"),
        ("train", [RECIPE, "--config.data.dir=nowhere"], "nowhere does not exist"),
        ("train", [RECIPE, "stray"], "stray"),
        ("train", [], "no recipe was named"),
        ("train", ["--config", "configs/smok.py"], "no config file configs/smok.py"),
        ("train", ["--config=README.md"], "no config file README.md"),
        ("train", [RECIPE + ":full"], "no variant :full"),
        ("train", [RECIPE, "--config.data.window_hu=1,'b'"], "two increasing numbers"),
        ("train", [RECIPE, "--config.data.dir=setup.py"], "setup.py is a file"),
        ("train", [RECIPE, "--wrkdir=x"], "wrkdir"),
        ("evaluate", ["--run=nowhere", "--data=nowhere"], "nowhere does not exist"),
        ("predict", ["--run=nowhere", "a.tif"], "INPUT OUTPUT"),
        ("predict", ["--run=nowhere", "a.tif", "b.tif"], "a.tif does not exist"),
        ("export", ["bundle"], "--run is missing."),
        ("predict", ["--run=nowhere", "", "b.tif"], "INPUT is empty."),
        ("compare", ["--tolerance=nan", "a.tif", "b.tif"], "--tolerance=nan"),
    ],
)
def test_a_mistake_is_one_plain_error(name, words, message, lungseg_here, tmp_path):
    done = lungseg_here(name, *words, cache=tmp_path / "unused")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    # Nothing was prepared or compiled.
    assert not list(tmp_path.glob("unused/lungseg_jax/*"))


@pytest.mark.parametrize(
    "name,words,message",
    [
        ("train", [RECIPE, "--distributed"], "JAX_COORDINATOR_ADDRESS"),
        ("train", [RECIPE, "--config.train.totl_steps=3"], "train.total_steps"),
        ("export", ["bundle"], "--run is missing."),
    ],
)
def test_a_mistake_ends_the_process_without_a_traceback(
    name, words, message, lungseg, tmp_path
):
    done = lungseg(name, *words, cache=tmp_path / "unused")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list(tmp_path.glob("unused/lungseg_jax/*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_and_flags(name, lungseg_here):
    done = lungseg_here(name, "--help")
    assert done.returncode == 0
    assert f"lungseg {name} " in done.stdout
    assert "Flags:" in done.stdout


def test_lungseg_lists_its_commands_and_refuses_others(lungseg):
    done = lungseg("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "Flags:" in lungseg("compare", "--help").stdout  # handed on
    misspelt = lungseg("predcit", "a")
    assert misspelt.returncode == 2 and "fix:   lungseg predict" in misspelt.stderr
    empty = lungseg("")
    assert empty.returncode == 2 and "no command was named" in empty.stderr
