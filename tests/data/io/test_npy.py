"""NumPy arrays as volumes."""

import numpy as np
import pytest
from volume_files import voxels, write_mask

from lungseg_jax.data.io.formats import open_volume
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
