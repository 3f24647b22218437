"""~ is expanded; what no home folder is known for is a plain error."""

from pathlib import Path

import pytest

from lungseg_jax.errors import UserError
from lungseg_jax.paths import user_path


def test_home_and_others(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert user_path("~/data") == Path("/home/ada/data")
    assert user_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    "text,says",
    [
        ("~no-such-user/data", "~no-such-user"),
        ("a\0b", "no path"),
        ("\ud800", "no path"),
    ],
)
def test_what_is_no_path(text, says):
    with pytest.raises(UserError, match=says) as e:
        user_path(text)
    assert e.value.rule
