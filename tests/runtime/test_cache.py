"""The cache folder and its lock."""

import subprocess
import sys

import pytest

from lungseg_jax.runtime.cache import cache_root, exclusive_lock
from lungseg_jax.runtime.errors import UserError


def test_the_cache_folder_is_created_where_it_is_set(tmp_path, monkeypatch):
    assert cache_root(str(tmp_path / "named")) == tmp_path / "named"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "lungseg_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "lungseg_jax"
    assert cache_root().is_dir()


def test_a_cache_folder_that_cannot_be_created_names_its_setting(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created") as e:
        cache_root(str(tmp_path / "file" / "cache"))
    assert "--config.cache_dir=DIR" in e.value.remedy
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be created") as e:
        cache_root()
    assert "XDG_CACHE_HOME" in e.value.remedy


HOLD = """
import pathlib, sys, time
from lungseg_jax.runtime.cache import exclusive_lock
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
