"""Volumes of every format: their values, and what is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_files import expected_slices, refused, voxels, write_nifti

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_reads_every_dtype_and_byte_order(dtype, order, suffix, tmp_path):
    array = np.abs(voxels(dtype=np.int16)).astype(dtype)
    if suffix == ".nrrd":
        word = {"float32": "float", "float64": "double"}.get(dtype, dtype)
        head = (
            f"NRRD0004\ntype: {word}\n"
            "dimension: 3\nsizes: 7 6 5\nencoding: gzip\n"
            f"endian: {'little' if order == '<' else 'big'}\n\n"
        )
        payload = gzip.compress(array.astype(array.dtype.newbyteorder(order)).tobytes())
        (tmp_path / "in.nrrd").write_bytes(head.encode() + payload)
        expected = array
    else:
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(dtype)
        nib.Nifti1Image(array, np.eye(4), header).to_filename(tmp_path / "in.nii.gz")
        expected = expected_slices(tmp_path / "in.nii.gz")
    with open_volume(tmp_path / f"in{suffix}") as volume:
        slices = np.stack(list(volume.slices()))
    np.testing.assert_array_equal(slices, expected)


def test_refuses_files_that_are_not_gray_volumes(tmp_path):
    vector = sitk.Image((4, 4, 4), sitk.sitkVectorUInt8, 3)
    four = sitk.Image((4, 4, 4, 2), sitk.sitkInt16)
    for name, image in (("rgb.nrrd", vector), ("time.nii", four)):
        sitk.WriteImage(image, str(tmp_path / name))
        refused(tmp_path / name, "dimensions")
    for name in ("flat.nii", "flat.nrrd"):
        sitk.WriteImage(sitk.Image((4, 4), sitk.sitkInt16), str(tmp_path / name))
        refused(tmp_path / name, "(?s)2 dimensions.*a volume of one slice")
    (tmp_path / "text.mha").write_text("hello")
    refused(tmp_path / "text.mha", "cannot be read")
    refused(tmp_path / "none.nii", "does not exist")
    (tmp_path / "empty.nrrd").touch()
    refused(tmp_path / "empty.nrrd", "is empty")
    (tmp_path / "slice.tif").touch()
    refused(tmp_path / "slice.tif", "is not a volume")
    refused(tmp_path / "notes.txt", "is not in a known format")


@pytest.mark.parametrize("mm", [b"0", b"-1"])
def test_refuses_a_spacing_that_is_not_positive(mm, tmp_path):
    path = tmp_path / "in.mha"
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkInt16), str(path))
    one, other = b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 " + mm
    path.write_bytes(path.read_bytes().replace(one, other))
    refused(path, "damaged header")


def test_refuses_pixels_that_are_not_finite(tmp_path):
    array = voxels(dtype=np.float32)
    array[1, 2, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / "in.nrrd"))
    for name in ("in.nii", "in.nii.gz"):
        write_nifti(tmp_path / name, "LPS", array)
    for name in ("in.nrrd", "in.nii", "in.nii.gz"):
        with open_volume(tmp_path / name) as volume:
            volume.read(2)
            with pytest.raises(UserError, match=f"slice 3 of .*{name} has NaN"):
                volume.read(3)


def test_reads_64_bit_integers(tmp_path):
    for name in ("in.nii.gz", "in.nrrd", "in.mha"):
        image = sitk.GetImageFromArray(voxels(dtype=np.int64))
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        with open_volume(tmp_path / name) as volume:
            np.testing.assert_array_equal(volume.read(1), voxels()[1])


def test_refuses_names_that_are_not_text(tmp_path):
    source = write_nifti(tmp_path / "in.nii", "LPS")
    odd = source.rename(tmp_path / "a\udcff.nii")
    refused(odd, "not valid UTF-8")
    with open_volume(write_nifti(tmp_path / "b.nii", "LPS")) as volume:
        with pytest.raises(UserError, match="not valid UTF-8"):
            VolumeWriter(odd, volume, np.uint8)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_are_a_user_error_or_harmless(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    suffix = data.draw(st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]))
    file = folder / f"in{suffix}"
    compressed = data.draw(st.booleans())
    image = sitk.GetImageFromArray(voxels())
    sitk.WriteImage(image, str(file), useCompression=compressed)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 500) - 1))
        content[at] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(None))])
    try:
        with open_volume(file) as volume:
            if volume.count * np.prod(volume.shape) < 10**6:
                list(volume.slices())
    except UserError:
        pass
