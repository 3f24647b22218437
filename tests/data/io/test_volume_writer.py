"""Volumes are written in every format, completely or not at all."""

import contextlib
import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import voxels, write_mask, write_nifti

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("source", [".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("target", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_writes_every_format_from_every_other(source, target, compressed, tmp_path):
    image = sitk.GetImageFromArray(voxels())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-12.5, 30.25, 7.0))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    file = (
        tmp_path
        / f"in{source}{'.gz' if (source, compressed) == ('.nii', True) else ''}"
    )
    sitk.WriteImage(image, str(file), useCompression=compressed)
    with open_volume(file) as volume:
        write_mask(volume, tmp_path / f"out{target}")
    mask = sitk.ReadImage(str(tmp_path / f"out{target}"))
    assert mask.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), voxels() > 0)
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        ours, theirs = getattr(mask, what)(), getattr(image, what)()
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_masks_are_compressed(suffix, tmp_path):
    source = write_nifti(tmp_path / "in.nii", "LPS", voxels((40, 50, 60)))
    with open_volume(source) as volume:
        write_mask(volume, tmp_path / f"m{suffix}")
        truth = np.stack(list(volume.slices())) > 0
    size = (tmp_path / f"m{suffix}").stat().st_size
    assert size < 40 * 50 * 60 / 20
    mask = sitk.ReadImage(str(tmp_path / f"m{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), truth)


def test_writes_floats(tmp_path):
    source = write_nifti(tmp_path / "in.nii", "LPS")
    with (
        open_volume(source) as volume,
        VolumeWriter(tmp_path / "out.mha", volume, np.float32) as out,
    ):
        for k, image in enumerate(volume.slices()):
            out.write(k, image / 7)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.mha")))
    expected = np.asarray(nib.load(source).dataobj).T / np.float32(7)
    np.testing.assert_allclose(written, expected, rtol=1e-6)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    source = write_nifti(tmp_path / "in.nii.gz", "RAS")
    with open_volume(source) as volume:
        for stop, error in ((2, RuntimeError), (None, ValueError)):
            with (
                pytest.raises(error),
                VolumeWriter(tmp_path / "out.nii.gz", volume, np.uint8) as out,
            ):
                out.write(0, np.zeros(volume.shape))
                if stop:
                    raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii.gz"]


@pytest.mark.parametrize("target", ["out.nii.gz", "out.nrrd", "out.mha"])
def test_a_finished_file_appears_at_the_end_of_the_context(target, tmp_path):
    source, target = write_nifti(tmp_path / "in.nii.gz", "RAS"), tmp_path / target
    with open_volume(source) as volume:
        for fails in (True, False):
            with contextlib.suppress(KeyboardInterrupt):
                with VolumeWriter(target, volume, np.uint8) as out:
                    for k in range(volume.count):
                        out.write(k, np.ones(volume.shape))
                    out.finish()
                    assert not target.exists()
                    if fails:
                        raise KeyboardInterrupt
            assert target.exists() != fails
    assert {p.name for p in tmp_path.iterdir()} == {"in.nii.gz", target.name}


def test_a_disk_that_is_full_at_the_start_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, *arguments, open=Path.open):
        if path.name == "plain":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, *arguments)

    volume = Volume("a", Geometry((2, 2, 2)), lambda axis, k: np.zeros((2, 2)))
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="No space left"):
        with VolumeWriter(tmp_path / "new" / "out.nii", volume, np.uint8):
            pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]


def test_a_file_has_its_place_on_the_disk_before_it_is_written(tmp_path, monkeypatch):
    """Else a full disk kills the process, where slices are not contiguous in the file."""
    volume = Volume("a", Geometry((512, 512, 8)), lambda axis, k: np.zeros((512, 512)))
    for has_fallocate in (True, False):
        if not has_fallocate:
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        with pytest.raises(ValueError, match="slice 0 is missing"):
            with VolumeWriter(tmp_path / "out.nii", volume, np.uint8):
                (plain,) = tmp_path.rglob("plain")
                status = plain.stat()
                assert status.st_size == 352 + 512 * 512 * 8
                assert status.st_blocks * 512 >= status.st_size


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EOPNOTSUPP])
def test_a_disk_without_space_is_an_error_at_the_start(code, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    source = write_nifti(tmp_path / "in.nii", "SRP")
    with open_volume(source) as volume:
        if code == errno.EOPNOTSUPP:  # zeros are written
            write_mask(volume, tmp_path / "out.nii")
            return
        with pytest.raises(UserError, match="No space left"):
            write_mask(volume, tmp_path / "out.nii")
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii"]


def test_replaces_an_existing_file_only_when_complete(tmp_path):
    source = write_nifti(tmp_path / "in.nii", "RAS")
    target = tmp_path / "out.nii"
    target.write_bytes(b"before")
    with open_volume(source) as volume:
        with VolumeWriter(target, volume, np.uint8) as out:
            for k in range(volume.count):
                out.write(k, np.ones(volume.shape))
                assert target.read_bytes() == b"before"
    assert np.asarray(nib.load(target).dataobj).all()
