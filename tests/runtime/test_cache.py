"""The cache folder."""

import pytest

from lungseg_jax.runtime.cache import cache_root, root_if_possible
from lungseg_jax.runtime.errors import UserError


def test_the_cache_folder_is_created_where_it_is_set(tmp_path, monkeypatch):
    assert cache_root(str(tmp_path / "named")) == tmp_path / "named"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "lungseg_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "lungseg_jax"
    assert cache_root().is_dir()


def test_without_a_home_folder_the_remedy_is_to_set_it(monkeypatch):
    """As in a container whose user has no entry in /etc/passwd: no path was typed."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match="home folder in ~/.cache") as e:
        cache_root()
    assert "set HOME" in e.value.remedy


def test_a_cache_folder_that_cannot_be_created_names_its_setting(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created") as e:
        cache_root(str(tmp_path / "file" / "cache"))
    assert "--config.cache_dir=DIR" in e.value.remedy
    assert root_if_possible(str(tmp_path / "file" / "cache")) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be created") as e:
        cache_root()
    assert "XDG_CACHE_HOME" in e.value.remedy
