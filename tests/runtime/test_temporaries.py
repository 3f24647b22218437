"""What a killed process leaves beside an output, and what deletes it."""

import fcntl
import subprocess
import sys

from lungseg_jax.runtime.files import write_text
from lungseg_jax.runtime.temporaries import temporary_path, working_folder

KILLED = """
import os
import sys
from pathlib import Path
from lungseg_jax.runtime.temporaries import working_folder
with working_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    os._exit(9)
"""


def test_what_a_killed_process_has_left_is_deleted_when_the_path_is_written_again(
    tmp_path,
):
    path, other = tmp_path / "ct.nii.gz", tmp_path / "other"
    for target in (path, other):
        subprocess.run([sys.executable, "-c", KILLED, str(target)])
    assert len(list(tmp_path.glob(".*/half"))) == 2
    with working_folder(path) as first:
        assert {p.name[10:] for p in tmp_path.iterdir()} == {path.name, other.name}
        with working_folder(path) as second:  # as another process would
            assert first.is_dir() and second.is_dir()
    assert [p.name[10:] for p in tmp_path.iterdir()] == [other.name]


def test_a_folder_is_not_deleted_before_it_is_locked(tmp_path, monkeypatch):
    path, lock = tmp_path / "ct.nii.gz", fcntl.flock

    def late(*args):
        monkeypatch.setattr("fcntl.flock", lock)
        with working_folder(path):  # of another process, meanwhile
            return lock(*args)

    monkeypatch.setattr("fcntl.flock", late)
    with working_folder(path) as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_a_name_of_any_length_has_a_temporary(tmp_path):
    path = tmp_path / ("\u00e4" * 123 + ".nii.gz")  # 253 bytes
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
        assert len(list(tmp_path.glob(".*"))) == 1
    with working_folder(path) as folder:
        assert folder.name.endswith("\u00e4.nii.gz")
    assert temporary_path(path).suffixes[-2:] == [".nii", ".gz"]
    write_text(path, "whole")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
