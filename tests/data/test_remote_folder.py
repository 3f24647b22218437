"""Data folders on object storage are copied once, and again where they change."""

from pathlib import Path

import fsspec
import pytest

from lungseg_jax.cli.check import check
from lungseg_jax.data import dataset, remote_folder
from lungseg_jax.data.remote_folder import local_data_folder
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path
from lungseg_jax.runtime.object_storage import upload


@pytest.fixture
def remote(bucket, pair_folder, request):
    """A data folder with slices a, b and c on object storage, and where it came from."""
    local = pair_folder(["a", "b", "c"], folder="original")
    address = folder_path(f"{bucket}/{request.node.name.partition('[')[0]}/ct")
    for file in local.rglob("*.tif"):
        upload(file, address / file.relative_to(local).as_posix())
    return address, local


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_copies_what_is_new_or_has_changed(remote, tmp_path, monkeypatch):
    address, original = remote
    cache = tmp_path / "cache"
    copy = local_data_folder(address, cache)
    assert copy.name == "ct" and contents(copy) == contents(original)
    kept = (copy / "2d_images/a.tif").stat().st_mtime_ns

    content = bytearray((original / "2d_images/b.tif").read_bytes())
    content[-1] ^= 1  # of the same size
    (original / "2d_images/b.tif").write_bytes(content)
    (original / "2d_images/c.tif").unlink()
    (original / "slices.csv").write_text("name\n")
    upload(original / "2d_images/b.tif", address / "2d_images/b.tif")
    upload(original / "slices.csv", address / "slices.csv")
    (address / "2d_images/c.tif").unlink()
    assert local_data_folder(address, cache) == copy
    assert contents(copy) == contents(original)
    assert (copy / "2d_images/a.tif").stat().st_mtime_ns == kept


def test_copies_again_what_the_copy_has_lost(remote, tmp_path):
    address, original = remote
    copy = local_data_folder(address, tmp_path)
    kept = (copy / "2d_images/a.tif").stat().st_mtime_ns
    (copy / "2d_images/b.tif").unlink()
    assert contents(local_data_folder(address, tmp_path)) == contents(original)
    assert (copy / "2d_images/a.tif").stat().st_mtime_ns == kept


def test_copies_again_what_an_interrupted_copy_left_in_part(
    remote, tmp_path, monkeypatch
):
    address, original = remote
    copy = local_data_folder(address, tmp_path)
    (copy / "2d_images/b.tif").unlink()

    def get_half(sources, targets):
        Path(targets[0]).write_bytes(b"half")
        raise KeyboardInterrupt

    storage, _ = fsspec.core.url_to_fs(str(address))
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(storage, "get", get_half)
        local_data_folder(address, tmp_path)
    assert (copy / "2d_images/b.tif").read_bytes() == b"half"
    assert contents(local_data_folder(address, tmp_path)) == contents(original)


def test_continues_an_interrupted_copy(remote, tmp_path, monkeypatch):
    address, original = remote
    monkeypatch.setattr(remote_folder, "FILES_AT_ONCE", 2)
    write_json, written = remote_folder.write_json, []

    def interrupted(path, content):
        write_json(path, content)
        written.append(len(content))
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(remote_folder, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        local_data_folder(address, tmp_path)
    assert contents(local_data_folder(address, tmp_path)) == contents(original)
    assert written == [0, 2, 4, 4, 6]


def test_only_the_files_of_a_data_folder_are_copied(remote, tmp_path):
    address, original = remote
    for name in ("notes.txt", "2d_images/deep/d.tif", "2d_other/x.tif"):
        (address / name).write_bytes(b"x")
    copy = local_data_folder(address, tmp_path)
    assert contents(copy) == contents(original)
    assert not remote_folder._is_ours("2d_images/..")
    assert not remote_folder._is_ours("../2d_images/a.tif")


def test_the_data_are_those_of_the_folder(remote, tmp_path, capsys):
    address, original = remote
    ours = dataset.load_dataset(address, cache=tmp_path)
    theirs = dataset.load_dataset(original, cache=tmp_path)
    assert ours.checked.fingerprint == theirs.checked.fingerprint
    check.main([str(address), f"--cache_dir={tmp_path}"], standalone_mode=False)
    assert f"fingerprint:  {theirs.checked.fingerprint}" in capsys.readouterr().out


def test_a_folder_without_slices_is_a_plain_error(bucket, tmp_path):
    address = folder_path(f"{bucket}/nothing")
    with pytest.raises(UserError, match=f"{address} has no files in 2d_images/"):
        local_data_folder(address, tmp_path)
    with pytest.raises(UserError, match="without a cache folder"):
        local_data_folder(address, None)
