"""The files of a run: locking, rows that are all or none, and rows that are damaged."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from tiny_run import tiny_config

from lungseg_jax import experiment
from lungseg_jax.experiment import run_experiment
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import read_json
from lungseg_jax.training.run_folder import RunFolder

CLAIM = """
import sys, time
from lungseg_jax.training.run_folder import RunFolder
with RunFolder(sys.argv[1]).claimed():
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_claimed_by_one_process_until_it_dies(tmp_path):
    folder = RunFolder(tmp_path / "run")
    owner = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder.path)], stdout=subprocess.PIPE
    )
    assert owner.stdout.readline() == b"claimed\n"
    with pytest.raises(UserError, match=f"in use by process {owner.pid} on "):
        with folder.claimed():
            pass
    owner.kill()
    owner.communicate()
    with folder.claimed():
        assert (folder.path / ".lock").exists()
    assert not list(folder.path.iterdir())


def test_temporary_files_of_a_killed_training_are_deleted(tmp_path):
    folder = RunFolder(tmp_path)
    folder.report.mkdir()
    left = [tmp_path / ".0a1b2c3d.run.json", folder.report / ".0a1b2c3d.index.html"]
    for path in left:
        path.touch()
    (tmp_path / ".notes.txt").touch()
    with folder.claimed():
        assert not any(path.exists() for path in left)
    assert (tmp_path / ".notes.txt").exists()


def test_refuses_a_run_in_use_and_names_its_process(copied_run, tiny_cache):
    c = tiny_config(tiny_cache)
    with copied_run.claimed():
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
            run_experiment(c, str(copied_run.path))
    run_experiment(c, str(copied_run.path))
    assert not list(copied_run.path.glob(".lock"))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(
    number, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(number, "no")))
    with RunFolder(tmp_path).claimed():
        assert "has no locks" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_folder_below_a_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="file is not a folder.\nfix: .*--workdir=DIR"),
        RunFolder(tmp_path / "file/run").claimed(),
    ):
        pass


def test_a_link_to_nothing_is_called_one(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "unmounted")
    with (
        pytest.raises(
            UserError, match="run is a link to nothing.\nfix: .*--workdir=DIR"
        ),
        RunFolder(tmp_path / "run").claimed(),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_refused_before_data_are_loaded(
    tmp_path, tiny_cache, monkeypatch
):
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    monkeypatch.setattr(experiment, "load_run_data", None)
    with pytest.raises(UserError, match="run is not writable.\nfix: .*--workdir=DIR"):
        run_experiment(tiny_config(tiny_cache), str(folder))
    assert not list(folder.iterdir())


def test_a_lock_that_fails_is_not_a_run_in_use(tmp_path, monkeypatch):
    failure = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=failure))
    with pytest.raises(UserError, match="cannot be locked: Input/output error"):
        with RunFolder(tmp_path).claimed():
            pass


APPEND = """
import resource, sys
from lungseg_jax.training.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.append_metrics([{"step": 1}])
size = folder.metrics.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 5))  # as a full disk
try:
    folder.append_metrics([{"step": 2}, {"step": 3}])
except OSError as e:
    print(type(e).__name__)
"""


def test_appends_all_rows_or_none(tmp_path):
    command = [sys.executable, "-c", APPEND, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "OSError\n", done.stderr
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_storage_that_refuses_to_be_read_is_a_plain_error(tmp_path):
    folder = RunFolder(tmp_path)
    refuse = mock.Mock(side_effect=RuntimeError("403"))  # gcsfs raises no OSError
    folder.config = folder.metrics = mock.Mock(
        is_file=refuse, exists=refuse, read_bytes=refuse
    )
    for read in (folder.require, folder.read_metrics, lambda: read_json(folder.config)):
        with pytest.raises(UserError, match="cannot be read: RuntimeError: 403"):
            read()


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[1]", b'{"a": 1}', b"[" * 100_000, b'{"step": 1']
)
def test_a_damaged_row_is_named_by_its_line(copied_run, line):
    rows = copied_run.metrics.read_bytes().splitlines(keepends=True)
    copied_run.metrics.write_bytes(b"".join([*rows[:2], line + b"\n", *rows[2:]]))
    with pytest.raises(UserError, match="line 3 of .* is damaged"):
        copied_run.read_metrics()


def test_a_truncated_last_row_is_ignored(copied_run):
    rows = copied_run.read_metrics()
    with copied_run.metrics.open("ab") as file:
        file.write(b'{"step": 8, "ki')
    assert copied_run.read_metrics() == rows
    copied_run.forget_metrics_after(3)
    assert copied_run.read_metrics() == [row for row in rows if row["step"] <= 3]


def test_a_backslash_is_refused_as_tensorstore_takes_it_for_a_slash(
    tmp_path, monkeypatch
):
    with pytest.raises(UserError, match="cannot have a backslash"):
        RunFolder(tmp_path / "a\\b")
    (tmp_path / "c\\d").mkdir()
    monkeypatch.chdir(tmp_path / "c\\d")
    with pytest.raises(UserError, match="cannot have a backslash"):
        RunFolder("run")


def test_a_run_has_the_name_of_its_folder(tmp_path, monkeypatch):
    (tmp_path / "mine/report").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine/report")
    assert [RunFolder(path).name for path in ("..", "../", tmp_path / "mine")] == [
        "mine"
    ] * 3
