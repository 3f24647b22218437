"""NRRD and MetaImage headers, read back by SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume


@pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_states_the_dtype_and_an_oblique_geometry_exactly(dtype, suffix, tmp_path):
    oblique = (0.0, 0.6, 0.8, -1.0, 0.0, 0.0, 0.0, -0.8, 0.6)
    geometry = Geometry(
        (5, 6, 7), (1 / 3, 0.8, 2.5), (-180.123456789, 1e-17, 7), oblique
    )
    like = Volume("like", geometry, lambda axis, index: None)
    with VolumeWriter(tmp_path / f"out{suffix}", like, np.dtype(dtype)) as out:
        for k in range(like.count):
            out.write(k, np.full(like.shape, k / 2))
    image = sitk.ReadImage(str(tmp_path / f"out{suffix}"))
    array = sitk.GetArrayFromImage(image)
    assert array.dtype == dtype
    for k in range(like.count):
        assert (array[geometry.index(k)] == np.array(k / 2, dtype)).all()
    assert image.GetSize() == geometry.size and image.GetOrigin() == geometry.origin
    np.testing.assert_allclose(image.GetSpacing(), geometry.spacing, rtol=1e-15)
    np.testing.assert_allclose(image.GetDirection(), oblique, rtol=1e-15, atol=1e-15)
