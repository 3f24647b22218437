"""All commands: help, and one plain error for each mistake."""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lungseg_jax.__main__ import COMMANDS
from lungseg_jax.cli import outcome
from lungseg_jax.cli.evaluate import evaluate
from lungseg_jax.cli.predict import predict
from lungseg_jax.inference.ensemble.predictor import LESS_MEMORY
from lungseg_jax.runtime.errors import UserError

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
        ("train", [RECIPE, "stray"], "unexpected argument stray."),
        (
            "train",
            ["--list=maybe"],
            "--list=maybe is not valid.\nrule:  true or false.",
        ),
        ("train", ["--config", "configs/smok.py"], "no config file configs/smok.py"),
        ("train", ["--config=incp_snapshot:fast"], "no variant :fast"),
        ("train", ["--config=README.md"], "no config file README.md"),
        ("train", [RECIPE + ":full"], "no variant :full"),
        ("train", [RECIPE, "--config.data.window_hu=1,'b'"], "two increasing numbers"),
        ("train", [RECIPE, "--config.data.dir=setup.py"], "setup.py is a file"),
        ("train", [RECIPE, "--wrkdir=x"], "unknown flag --wrkdir.\nfix:   --workdir\n"),
        (
            "verify",
            ["--run=setup.py"],
            "setup.py is not a run folder or a bundle: it is a",
        ),
        ("check", ["tests"], "fix:   name the folder above them"),
        ("evaluate", ["--run=nowhere", "--data=nowhere"], "nowhere does not exist"),
        ("predict", ["--run=nowhere", "a.tif"], "OUTPUT is missing."),
        ("predict", ["a.tif", "b.tif", "c.tif"], "unexpected extra argument (c.tif)"),
        ("predict", ["my", "scan.nii", "b.nii"], "a path with spaces in quotes"),
        ("predict", ["a.tif", "b.tif", "-o", "c.tif"], "named twice, as b.tif and as"),
        ("predict", ["--labels=both", "a", "b"], "'lung', 'sides'"),
        ("predict", ["--ovrlay", "a.tif", "b.tif"], "--overlay"),
        (
            "phantom",
            ["--seed=x", "a.nii"],
            "--seed: 'x' is not a valid integer.\nrule:  an integer, 0 or more.\n",
        ),
        ("phantom", ["--slices=0", "a.nii"], "rule:  an integer from 1 to 2000."),
        ("compare", ["--tolerance=-1", "a", "b"], "rule:  a number, 0 or more."),
        ("predict", ["a.tif", "b.tif"], "a.tif does not exist"),
        ("export", ["bundle"], "--run is missing."),
        ("verify", ["--run=nowhere"], "nowhere is not a run folder or a bundle"),
        ("train", [RECIPE, "--device=cuda"], "--device=cuda is not the name"),
        (
            "predict",
            ["--device=cuda", "a.tif", "b.tif"],
            "--device=cuda is not the name",
        ),
        ("predict", ["--run=nowhere", "", "b.tif"], "INPUT is empty."),
        ("compare", ["--tolerance=nan", "a.tif", "b.tif"], "--tolerance=nan"),
        ("check", ["docs", "--cache_dir=\ud800"], "is not a valid path"),
        ("train", ["--flagfile=bad"], "--flagfile is not supported"),
        ("train", [RECIPE, "--workdir=~nobody-here/x"], "~nobody-here/x is unknown"),
    ],
)
def test_a_mistake_is_one_plain_error(name, words, message, lungseg_here, tmp_path):
    done = lungseg_here(name, *words, cache=tmp_path / "unused")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    # Nothing was prepared or compiled.
    assert not list(tmp_path.glob("unused/lungseg_jax/*"))


@pytest.mark.parametrize(
    "word,rule",
    [
        ("--config.train.total_steps=3.5", "an integer from 1 to 1000000000."),
        ("--config.seed=", "an integer from 0 to 2147483647."),
        ("--config.augment.flip_lr=maybe", "true or false."),
        ("--noconfig.augment.flip_lr=3", "true or false."),
        ("--config.augment.zoom=x", "a number from 0.0 to 0.9."),
    ],
)
@pytest.mark.parametrize("words", [["train"], ["compile", "--topology=cpu"]])
def test_a_value_of_another_type_is_refused_with_the_rule(
    words, word, rule, lungseg_here
):
    done = lungseg_here(*words, RECIPE, word)
    assert done.returncode == 2
    assert done.stderr == f"error: {word} is not valid.\nrule:  {rule}\n"


def test_a_config_key_without_a_value_is_refused(lungseg_here):
    done = lungseg_here("train", RECIPE, "--config.train.total_steps", "--list=false")
    assert done.stderr == (
        "error: --config.train.total_steps has no value.\n"
        "rule:  an integer from 1 to 1000000000.\n"
        "fix:   write --config.train.total_steps=VALUE.\n"
    )


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


@pytest.mark.parametrize(
    "words", [("train", "--init=x"), ("compile", "--topology=cpu")]
)
@pytest.mark.parametrize(
    "line,message",
    [
        ("pass", "the config is a NoneType, not a ConfigDict."),
        ("return {'name': 'x'}", "the config is a dict, not a ConfigDict."),
        ("return ml_collections.ConfigDict({'name': 'x'})", "augment.blur is missing"),
        ("return STEPS", "--config: NameError: name 'STEPS' is not defined"),
        ("return [][1]", "--config: IndexError: list index"),
        ("return 1 / 0", "--config: ZeroDivisionError: "),
        ("open('nowhere')", "--config: FileNotFoundError: "),
        ("assert False", "--config: AssertionError: "),
        ("len(3)", "--config: TypeError: object of type 'int' has no len()\nrule:"),
        ("float('x')", "--config: ValueError: could not convert string to float: 'x'"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_plain_error(
    words, line, message, lungseg_here, tmp_path
):
    (tmp_path / "recipe.py").write_text(
        f"import ml_collections\ndef get_config(variant=''):\n    {line}\n"
    )
    done = lungseg_here(*words, f"--config={tmp_path}/recipe.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    if message.startswith("--config: "):
        assert f"raised by {tmp_path}/recipe.py, line 3." in done.stderr


@pytest.mark.parametrize(
    "code,variant,what",
    [
        ("", "", " has no get_config()."),
        ("def get_config(): pass", ":v", ": get_config() takes 0 positional arguments"),
        ("def get_config(v): pass", "", ": get_config() missing 1 required positional"),
        ("def get_config() pass", "", "SyntaxError: expected ':' (recipe.py, line 1)"),
    ],
)
def test_a_recipe_that_cannot_be_called_is_one_plain_error(
    code, variant, what, lungseg_here, monkeypatch, tmp_path
):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # of other tests
    (tmp_path / "recipe.py").write_text(code)
    done = lungseg_here("train", f"--config={tmp_path}/recipe.py{variant}")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert what in done.stderr and f"{tmp_path}/recipe.py" in done.stderr
    assert done.stderr.endswith("fix:   correct the recipe.\n")
    assert len(done.stderr.splitlines()) == 3 and "cli/" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--config=smoke"),
        ("predict", "slice.npy", "mask.npy"),
        ("verify", "--run={run}"),
    ],
)
def test_a_platform_that_jax_lacks_is_a_plain_error(
    words, lungseg, trained_run, tmp_path
):
    np.save(tmp_path / "slice.npy", np.zeros((64, 64), np.int16))
    words = [word.format(run=trained_run) for word in words]
    done = lungseg(*words, cwd=tmp_path, JAX_PLATFORMS="cudda")
    assert done.returncode == 2 and "JAX cannot use JAX_PLATFORMS=cudda" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [predict, evaluate])
def test_what_needs_less_memory_is_an_option_of_each_command(command):
    named = set(re.findall(r"--(\w+)", LESS_MEMORY)) - {"config"}  # of a training
    assert named <= {option.name for option in command.params}


def test_an_error_of_the_system_names_the_file_in_plain_words(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"), outcome.reported(""):
        (tmp_path / "none/file").touch()
    expected = f"error: {tmp_path}/none/file: No such file or directory.\n"
    assert capsys.readouterr().err == expected


def test_a_working_folder_that_was_deleted_is_named(capsys, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit, match="2"), outcome.reported(""):
        Path.cwd()
    assert capsys.readouterr().err.startswith(
        "error: the working folder does not exist"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("train", "--list"),
        ("check", "{folder}"),
        ("compare", "{folder}/2d_masks", "{folder}/2d_masks"),
        ("verify", "--run=pretrained"),
    ],
)
def test_a_reader_that_has_left_is_not_an_error(words, labelled_folder, shared_folder):
    reader, writer = os.pipe()
    os.close(reader)
    words = [word.format(folder=labelled_folder) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "lungseg_jax", *words],
        env=os.environ | {"XDG_CACHE_HOME": str(shared_folder / "cache")},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_folder_for_temporary_files_the_remedy_is_named(capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/dev/null"])
    with pytest.raises(SystemExit, match="2"), outcome.reported(""):
        tempfile.mkdtemp()
    assert "set TMPDIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error,status", [(UserError(""), 2), (OSError(""), 2), (KeyboardInterrupt(), 130)]
)
def test_the_status_is_the_same_if_stderr_is_full(error, status, monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        with pytest.raises(SystemExit) as e, outcome.reported(""):
            raise error
    assert e.value.code == status


def test_a_pipe_other_than_the_output_that_breaks_is_an_error(capfd):
    with pytest.raises(SystemExit, match="2"), outcome.reported(""):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert capfd.readouterr().err == "error: Broken pipe.\n"


def test_without_words_the_help_is_printed(lungseg, lungseg_here):
    assert lungseg().stdout == lungseg("--help").stdout
    for name in COMMANDS:
        if name not in ("train", "doctor"):
            done = lungseg_here(name)
            assert done.returncode == 0 and "Options:" in done.stdout


def test_without_docstrings_the_help_has_only_options(lungseg):
    for words in (["--version"], ["--help"], ["train", "--help"], ["check", "--help"]):
        done = lungseg(*words, PYTHONOPTIMIZE="2")
        assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize("name", ["-o", "--output"])
def test_the_output_may_be_an_option(name, lungseg_here, tmp_path):
    words = "--slices=1", "--size=64", "--quiet", name, tmp_path / "p.nii"
    done = lungseg_here("phantom", *words)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (tmp_path / "p.nii").exists()


def test_words_are_checked_before_anything_heavy_is_imported(labelled_folder, tmp_path):
    """So that every help and every usage error is there in an instant."""
    data, new = labelled_folder, tmp_path / "new"
    lines = [
        *((f"{name} --help", "") for name in COMMANDS),
        *((f"{name} --no_such_option", "error: ") for name in COMMANDS),
        ("train --list", ""),
        ("train --config=incp_snapsho", "no config file"),
        ("train --config incp_snapshot stray", "unexpected argument stray"),
        ("train --config.train.nope=3", "unknown config key"),
        ("train --config.train.total_steps=abc", "total_steps=abc is not valid"),
        ("train --config.train.total_steps=0", "total_steps=0 is out of range"),
        ("train --config.seed", "has no value"),
        ("train --device=cuda", "is not the name of a device"),
        ("train --track=foo", "unknown tracker"),
        ("train --preview=x.foo", "is not a PNG"),
        ("crossval --config.data.dri=x", "unknown config key"),
        ("compile --topology=zz", "--topology=zz is not known"),
        ("compile --topology=cpu --config=bogus", "no config file bogus"),
        ("compile --topology=cpu --config.data.dri=x", "unknown config key"),
        (f"export --push=foo --run=x {new}", "does not name a repository"),
        (f"export --run=nowhere {new}", "is not a run folder"),
        (f"predict --run=hf://x a.tif {new}", "does not name a repository"),
        (f"predict --run=nowhere a.tif {new}", "is not a run folder or a bundle"),
        (f"predict --postprocessing=foo a.tif {new}", "'drop_islands'"),
        ("evaluate --data=nowhere", "data folder nowhere does not exist"),
        (f"evaluate --data={tmp_path}", "has no folder 2d_images/"),
        (f"evaluate --run=nowhere --data={data}", "is not a run folder or a bundle"),
        (f"audit --run=nowhere {data} {new}", "is not a run folder or a bundle"),
        (f"audit nowhere {new}", "data folder nowhere does not exist"),
        ("check nowhere", "data folder nowhere does not exist"),
        ("verify --run=nowhere", "is not a run folder or a bundle"),
        ("report nowhere", "is not a run folder"),
    ]
    lines = [(words.split(), message) for words, message in lines]
    program = Path(__file__).with_name("light_commands.py")
    done = subprocess.run(
        [sys.executable, program],
        input=json.dumps(lines),
        env=os.environ | {"GLIBC_TUNABLES": ""},  # or train restarts Python
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(lines)} commands"


def test_weights_of_the_package_need_no_library_of_training():
    """They would double the time until a mask."""
    code = (
        "import sys, numpy as np, lungseg_jax as ls\n"
        "ls.load()(np.full((64, 64), -1000, np.int16))\n"
        "unused = {'orbax', 'optax', 'tensorflow_datasets', 'scipy.stats'}\n"
        "unused |= {'scipy.optimize', 'matplotlib', 'pandas'}\n"
        "assert not unused & set(sys.modules), unused & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_shells_complete_commands_and_options(lungseg):
    def complete(*words):
        environment = {
            "_LUNGSEG_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("lungseg", *words)),
            "COMP_CWORD": str(len(words)),
        }
        return lungseg(**environment).stdout.split()

    assert complete("ev") == ["plain,evaluate"]
    assert "plain,--labels" in complete("predict", "--la")
    assert complete("predict", "--labels", "s") == ["plain,sides"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_and_flags(name, lungseg_here):
    done = lungseg_here(name, "--help")
    assert done.returncode == 0
    assert f"lungseg {name} " in done.stdout
    assert ("Flags:" if name == "train" else "Options:") in done.stdout


def test_lungseg_lists_its_commands_and_refuses_others(lungseg):
    done = lungseg("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: lungseg COMMAND [OPTIONS]...\n")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "Options:" in lungseg("compare", "--help").stdout  # handed on
    assert "0.2" in lungseg("--version").stdout
    misspelt = lungseg("predcit", "a")
    assert misspelt.returncode == 2 and "fix:   lungseg predict" in misspelt.stderr
    empty = lungseg("")
    assert empty.returncode == 2 and "no command was named" in empty.stderr
