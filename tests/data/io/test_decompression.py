"""Truncated and oversized volumes are refused while they are decompressed."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import refused, voxels, write_nifti

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_refuses_a_truncated_file(suffix, compressed, tmp_path):
    image = sitk.GetImageFromArray(voxels((20, 21, 22)))
    file = tmp_path / f"in{suffix}"
    sitk.WriteImage(image, str(file), useCompression=compressed)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="in.n|in.m") as e, open_volume(file) as volume:
        list(volume.slices())
    assert "damaged" in e.value.what or "cannot be read" in e.value.what


def test_accepts_zeros_after_a_member_of_a_gzip_file(tmp_path, monkeypatch):
    """As gzip(1) and nibabel do; files are padded so on tapes."""
    monkeypatch.setattr("lungseg_jax.data.io.decompression.BLOCK", 100)
    content = write_nifti(tmp_path / "in.nii", "RAS").read_bytes()
    members = gzip.compress(content[:999]), gzip.compress(content[999:])
    (tmp_path / "in.nii.gz").write_bytes(b"".join(m + bytes(512) for m in members))
    with (
        open_volume(tmp_path / "in.nii") as plain,
        open_volume(tmp_path / "in.nii.gz") as padded,
    ):
        np.testing.assert_array_equal(list(padded.slices()), list(plain.slices()))


def test_stops_decompressing_a_bomb(tmp_path, monkeypatch):
    """A small file cannot fill the disk: it may not exceed the size it declares."""
    monkeypatch.setattr("lungseg_jax.data.io.nifti.MAX_PADDING_BYTES", 1000)
    source = write_nifti(tmp_path / "in.nii", "RAS")
    content = source.read_bytes()
    (tmp_path / "in.nii.gz").write_bytes(gzip.compress(content + bytes(10**6)))
    refused(tmp_path / "in.nii.gz", "more data than it declares")
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 100000 100000 2\n"
    (tmp_path / "big.nrrd").write_text(f"{head}encoding: gzip\nendian: little\n\n")
    refused(tmp_path / "big.nrrd", "declares 2 slices of 100000 x 100000")
