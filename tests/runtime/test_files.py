"""~ is expanded; what no home folder is known for is a plain error."""

from pathlib import Path

import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path


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


def test_outputs_are_no_inputs_and_files_of_their_own(tmp_path):
    read, new = tmp_path / "read", tmp_path / "new"
    read.mkdir()
    (tmp_path / "link").symlink_to(read)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    def refused(*outputs, overwrite=True):
        with pytest.raises(UserError) as e:
            check_outputs(outputs, inputs=[read], overwrite=overwrite)
        return e.value.what

    assert "an input" in refused(read)
    assert "an input" in refused(read / "x.csv")
    assert "an input" in refused(tmp_path / "link" / "x.csv")
    assert "one name" in refused(new, tmp_path / "." / "new")
    (tmp_path / "there").touch()
    assert "1 output already there" in refused(tmp_path / "there", overwrite=False)
    for overwrite in (False, True):
        check_outputs([new, tmp_path / "circle"], inputs=[read], overwrite=overwrite)
    check_outputs([tmp_path / "there"], inputs=[read], overwrite=True)
