"""Truncated and oversized volumes are refused while they are decompressed."""

import gzip

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
