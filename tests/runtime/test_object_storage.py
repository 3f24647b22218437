"""Addresses of object storage: what they may be, and plain errors for what they are not."""

import importlib.util

import fsspec
import pytest
from etils import epath

from lungseg_jax.runtime import files, object_storage
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path, user_path, write_text
from lungseg_jax.runtime.object_storage import download, local_copy


def test_paths_of_this_machine_stay_paths(tmp_path):
    assert folder_path(str(tmp_path)) == tmp_path
    assert not object_storage.is_remote(tmp_path / "gs:" / "bucket")


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket/ct"])
def test_files_of_this_machine_have_no_address(address):
    with pytest.raises(UserError, match="is on object storage") as e:
        user_path(address)
    assert "gcloud storage cp" in e.value.remedy


@pytest.mark.parametrize("address", ["gs://", "gs://bucket", "s3://bucket/"])
def test_an_address_names_a_folder(address):
    with pytest.raises(UserError, match="does not name a folder"):
        folder_path(address)


@pytest.mark.parametrize("scheme,extra", [("gs", "gcs"), ("s3", "s3")])
def test_names_the_extra_that_is_missing(scheme, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{scheme}://b/run needs") as e:
        folder_path(f"{scheme}://b/run")
    assert f"lungseg_jax[{extra}]" in e.value.remedy


def test_storage_that_does_not_answer_is_a_plain_error(monkeypatch):
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")

    def refuse(self):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(epath.gpath.PosixGPath, "exists", refuse)
    with pytest.raises(UserError, match="RuntimeError: no credentials") as e:
        folder_path("gs://bucket/run")
    assert "credentials" in e.value.remedy


def test_a_file_appears_when_it_is_complete(bucket):
    file = folder_path(f"{bucket}/files") / "a" / "text.txt"
    write_text(file, "old")
    with pytest.raises(KeyError), files.atomic_write(file) as temporary:
        temporary.write_text("ne")
        raise KeyError
    assert file.read_text() == "old"
    with files.atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    with local_copy(file) as copy:
        assert copy.read_text() == "new" and copy.suffix == ".txt"
    assert not copy.exists()
    with pytest.raises(FileNotFoundError), local_copy(file.with_name("b")):
        pass


def test_objects_stay_in_their_folder(bucket, tmp_path, monkeypatch):
    folder = folder_path(f"{bucket}/hostile")
    (folder / "a.txt").write_text("a")
    storage, _ = fsspec.core.url_to_fs(str(folder))
    download(folder, tmp_path / "good")
    assert (tmp_path / "good/a.txt").read_text() == "a"
    monkeypatch.setattr(storage, "find", lambda name: [f"{name}/../b"])
    with pytest.raises(OSError, match=r"objects with \.\. in their names"):
        download(folder, tmp_path / "bad")
    assert not (tmp_path / "bad").exists() and not (tmp_path / "b").exists()


def test_a_file_that_cannot_be_written_is_a_plain_error(bucket):
    other = bucket.replace("bucket", "no-such-bucket")
    with pytest.raises(UserError, match="no-such-bucket/run/a.txt cannot be written"):
        write_text(folder_path(f"{other}/run") / "a.txt", "text")
