"""NRRD and MetaImage volumes: their headers, and what is wrong with them."""

import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import refused

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "space,is_placed",
    [("", False), ("space: scanner-xyz\n", False), ("space: RAS\n", True)],
)
def test_nrrd_states_its_axes_by_its_space(space, is_placed, tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    head = f"{head}endian: little\n{space}\n"
    (tmp_path / "in.nrrd").write_bytes(head.encode() + bytes(16))
    with open_volume(tmp_path / "in.nrrd") as volume:
        assert volume.is_placed == is_placed


def test_refuses_a_header_whose_voxels_are_in_another_file(tmp_path):
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkInt16), str(tmp_path / "a.mha"))
    head = (tmp_path / "a.mha").read_bytes().split(b"ElementDataFile")[0]
    (tmp_path / "secret.raw").write_bytes(bytes(128))
    (tmp_path / "b.mha").write_bytes(head + b"ElementDataFile = secret.raw\n")
    refused(tmp_path / "b.mha", "another file")
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
    (tmp_path / "c.nrrd").write_text(f"{nrrd}endian: little\ndata file: secret.raw\n\n")
    refused(tmp_path / "c.nrrd", "another file")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_refuses_sheared_axes(suffix, tmp_path):
    """As of a tilted gantry; SimpleITK reads and writes them."""
    image = sitk.Image((4, 4, 4), sitk.sitkInt16)
    image.SetDirection((1, 0, 0, 0, 1, 0.2, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / f"in{suffix}"))
    refused(tmp_path / f"in{suffix}", "sheared axes")


def test_accepts_directions_rounded_to_four_digits(tmp_path):
    image = sitk.Image((4, 4, 4), sitk.sitkInt16)
    image.SetDirection((0.9848, -0.1736, 0, 0.1736, 0.9848, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "in.mha"))
    with open_volume(tmp_path / "in.mha") as volume:
        assert volume.count == 4


def test_simpleitk_prints_nothing_about_a_damaged_header(tmp_path, capfd):
    """MetaIO prints "ElementType required and not defined"."""
    file = tmp_path / "in.mha"
    file.write_bytes(b"ObjectType = Image\nNDims = 3\nDimSize = 1 2\n")
    with pytest.raises(UserError, match="cannot be read"), open_volume(file):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["50%.mha", "100%scan.nrrd", "a%n%n.mha", "x\ny.nrrd"])
def test_reads_files_with_any_name(name, tmp_path, monkeypatch):
    """MetaIO takes a % in the name of a data file as that of a printf format."""
    (tmp_path / "t%s%n").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t%s%n"))
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    plain = tmp_path / f"in.{name.split('.')[-1]}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(plain))
    plain.rename(tmp_path / name)
    with open_volume(tmp_path / name) as volume:
        assert volume.read(2).sum() == array[2].sum()


@pytest.mark.parametrize("value", ["True", "T", "1"])
def test_metaimage_is_big_endian_in_any_spelling(value, tmp_path):
    array = np.arange(60, dtype=">i2").reshape(3, 4, 5)
    head = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\n"
    head += f"BinaryDataByteOrderMSB = {value}\nElementDataFile = LOCAL\n"
    (tmp_path / "in.mha").write_bytes(head.encode() + array.tobytes())
    with open_volume(tmp_path / "in.mha") as volume:
        np.testing.assert_array_equal(volume.read(1), array[1])


@pytest.mark.parametrize("name", ["A.MHA", "a.Mha", "A.NRRD"])
def test_suffixes_may_be_in_upper_case(name, tmp_path):
    image = sitk.Image((4, 4, 3), sitk.sitkInt16)
    sitk.WriteImage(image, str(tmp_path / f"in.{name[2:].lower()}"))
    (tmp_path / f"in.{name[2:].lower()}").rename(tmp_path / name)
    with open_volume(tmp_path / name) as volume:
        assert volume.count == 3
