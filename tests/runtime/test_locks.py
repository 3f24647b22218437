"""A lock that one process holds, and others wait for."""

import errno
import fcntl
import subprocess
import sys
from unittest import mock

import pytest

from lungseg_jax.runtime.locks import NO_LOCKS, exclusive_lock

HOLD = """
import pathlib, sys, time
from lungseg_jax.runtime.locks import exclusive_lock
with exclusive_lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    print("released", flush=True)
"""


def test_a_lock_is_waited_for_and_a_killed_process_releases_it(tmp_path, capsys):
    file = tmp_path / "new" / "lock"

    def hold(seconds):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(file), str(seconds)],
            stdout=subprocess.PIPE,
        )
        assert holder.stdout.readline() == b"locked\n"
        return holder

    holder = hold(0.5)
    with exclusive_lock(file):
        assert holder.stdout.readline() == b"released\n"
    assert f"waiting for another process that holds {file}" in capsys.readouterr().out
    holder.communicate()
    holder = hold(60)
    holder.kill()
    holder.communicate()
    with exclusive_lock(file):
        pass
    assert "waiting" not in capsys.readouterr().out


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_file_system_without_locks_is_warned_of(
    number, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(number, "no")))
    with exclusive_lock(tmp_path / "lock"):
        assert "has no locks" in capsys.readouterr().out


def test_a_lock_that_fails_is_an_error(tmp_path, monkeypatch):
    failure = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=failure))
    with pytest.raises(OSError, match="Input/output error"):
        with exclusive_lock(tmp_path / "lock"):
            pass
