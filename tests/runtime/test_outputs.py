"""Outputs that a command refuses before it does any work."""

import os
from pathlib import Path

import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.outputs import check_outputs, require_outside


def test_outputs_are_neither_inputs_nor_the_same_file(tmp_path):
    read, new = tmp_path / "read", tmp_path / "new"
    read.mkdir()
    (tmp_path / "link").symlink_to(read)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    def refusal(*outputs, overwrite=True):
        with pytest.raises(UserError) as e:
            check_outputs(outputs, inputs=[read], overwrite=overwrite)
        assert e.value.remedy
        return e.value.what

    outside = f"not outside of the input folder {read}"
    for path in (read, read / "x.csv", tmp_path / "link" / "x.csv"):
        assert outside in refusal(path)
    (tmp_path / "scan").touch()
    (tmp_path / "SCAN").hardlink_to(tmp_path / "scan")  # as if case made no difference
    with pytest.raises(UserError, match="SCAN would overwrite the input"):
        check_outputs([tmp_path / "SCAN"], inputs=[tmp_path / "scan"], overwrite=True)
    assert "one name" in refusal(new, tmp_path / "." / "new")
    (tmp_path / "there").touch()
    assert "1 output already there" in refusal(tmp_path / "there", overwrite=False)
    for overwrite in (False, True):
        check_outputs([new, tmp_path / "circle"], inputs=[read], overwrite=overwrite)
    check_outputs([tmp_path / "there"], inputs=[read], overwrite=True)


def test_outputs_are_not_deep_inside_an_input(tmp_path):
    """Neither is a link in an input, which would be replaced, or one into it."""
    (tmp_path / "read/deeper").mkdir(parents=True)
    (tmp_path / "into").symlink_to(tmp_path / "read/deeper")
    (tmp_path / "read/away").symlink_to(tmp_path / "elsewhere")
    for path in ("read/deeper/x.csv", "read/new/folder/x.csv", "into", "read/away"):
        with pytest.raises(
            UserError, match=f"{path} is not outside of the input folder"
        ):
            require_outside([tmp_path / path], [tmp_path / "read"])


def test_outputs_are_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        for path in (Path(os.devnull), tmp_path / "pipe"):
            with pytest.raises(UserError, match="a device or a pipe"):
                check_outputs([path], inputs=[], overwrite=overwrite)


def test_outputs_need_a_folder_that_can_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        check_outputs([tmp_path / "file/a/b.csv"], inputs=[], overwrite=True)
    check_outputs([tmp_path / "new/folder/b.csv"], inputs=[], overwrite=True)
    with pytest.raises(UserError, match="is a folder"):
        check_outputs([tmp_path], inputs=[], overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        check_outputs([], folders=[tmp_path / "file"], inputs=[], overwrite=True)


def test_names_fit_into_file_systems(tmp_path):
    check_outputs([tmp_path / ("a" * 255)], inputs=[], overwrite=False)
    with pytest.raises(UserError, match="a name of 256 bytes"):
        check_outputs([tmp_path / ("\u00e4" * 128)], inputs=[], overwrite=False)


def test_a_link_to_nothing_is_there(tmp_path):
    (tmp_path / "out").symlink_to("nothing")
    with pytest.raises(UserError, match="1 output already there"):
        check_outputs([], folders=[tmp_path / "out"], inputs=[], overwrite=False)
