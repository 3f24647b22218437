"""NumPy arrays as volumes."""

import numpy as np
import pytest
from volume_files import voxels, write_mask

from lungseg_jax.data.io.formats import (
    open_volume,
    read_slice_array,
    read_slice_mask,
)
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.runtime.errors import UserError


def test_reads_arrays_which_have_no_geometry(tmp_path):
    np.save(tmp_path / "in.npy", voxels())
    with open_volume(tmp_path / "in.npy") as volume:
        np.testing.assert_array_equal(np.stack(list(volume.slices())), voxels())
        assert volume.spacing_mm is None and not volume.is_placed
        write_mask(volume, tmp_path / "out.npy")
        with pytest.raises(UserError, match="has no geometry"):
            VolumeWriter(tmp_path / "out.nii", volume, np.uint8)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), voxels() > 0)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(voxels()))
    with open_volume(tmp_path / "fortran.npy") as volume:
        np.testing.assert_array_equal(np.stack(list(volume.slices())), voxels())


def test_a_mask_may_be_boolean_but_not_an_image(tmp_path):
    mask = voxels() > 2
    np.save(tmp_path / "volume.npy", mask)
    with open_volume(tmp_path / "volume.npy") as volume:
        np.testing.assert_array_equal(np.stack(list(volume.slices())), mask)
    np.save(tmp_path / "slice.npy", mask[0])
    read = read_slice_mask(tmp_path / "slice.npy")
    assert read.dtype == np.uint8 and np.array_equal(read, mask[0])
    with pytest.raises(UserError, match="slice.npy holds bool"):
        read_slice_array(tmp_path / "slice.npy")
