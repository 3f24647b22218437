"""Voxels in a file beside the header: .mhd with .raw or .zraw, .nhdr with .raw(.gz)."""

import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from volume_files import refused, voxels

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.stored_voxels import files_of
from lungseg_jax.runtime.errors import UserError

ARRAY = voxels((3, 4, 5))
META = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\n"


def write(folder, name, header, voxel_file="v.raw", stored=ARRAY.tobytes()):
    (folder / voxel_file).write_bytes(stored)
    (folder / name).write_text(header)
    return folder / name


def assert_read(path):
    with open_volume(path) as volume:
        np.testing.assert_array_equal(np.stack(list(volume.slices())), ARRAY)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_simpleitk_writes(suffix, compressed, tmp_path):
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((1, 2, 3))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(files_of(path)) == sorted(tmp_path.iterdir())
    assert_read(path)
    with open_volume(path) as volume:
        assert volume.spacing_mm == (2.5, 0.8, 0.7)
        assert volume.geometry.origin == (1, 2, 3)


@pytest.mark.parametrize(
    "fields,before,after",
    [
        ("", 0, 0),
        ("HeaderSize = -1\n", 100, 0),
        ("HeaderSize = 100\n", 100, 0),
        ("HeaderSize = 100\n", 100, 1),
        ("", 1, 0),
        ("", -1, 0),
    ],
)
def test_header_size_of_metaimage(fields, before, after, tmp_path):
    """-1 takes the voxels from the end of the file."""
    stored = bytes(max(0, before)) + ARRAY.tobytes()[max(0, -before) :] + bytes(after)
    header = f"{META}{fields}ElementDataFile = v.raw\n"
    path = write(tmp_path, "in.mhd", header, stored=stored)
    if before < 0:
        refused(path, "v.raw is damaged: it is truncated")
    elif after or before and not fields:
        refused(path, "v.raw is damaged: 1 bytes follow")
    else:
        assert_read(path)


@pytest.mark.parametrize("size", ["", "HeaderSize = -1\n"])
@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("voxel_file", ["LOCAL", "v.zraw"])
def test_compressed_voxels_of_metaimage(size, compress, voxel_file, tmp_path):
    stored = compress(ARRAY.tobytes())
    head = f"{META}CompressedData = True\n{size}ElementDataFile = {voxel_file}\n"
    path = write(tmp_path, "in.mhd", head, "v.zraw", stored)
    if voxel_file == "LOCAL":
        path.write_bytes(head.encode() + stored)
        assert files_of(path) == [path]
    assert_read(path)


@pytest.mark.parametrize("name", ["50%.raw", "%n%n.raw", "a b.raw", "\u00e9.raw"])
def test_voxels_may_have_any_name(name, tmp_path):
    assert_read(write(tmp_path, "a.mhd", f"{META}ElementDataFile = {name}\n", name))
    header = f"{NRRD}encoding: raw\ndata file: {name}\n"
    assert_read(write(tmp_path, "a.nhdr", header, name))


@pytest.mark.parametrize("end", ["\n", "\n\n"])
def test_detached_nrrd_ends_with_the_name_of_its_voxels(end, tmp_path):
    header = f"{NRRD}encoding: raw\ndata file: ./v.raw{end}"
    assert_read(write(tmp_path, "in.nhdr", header))


@pytest.mark.parametrize(
    "name",
    [
        "../v.raw",
        "other/v.raw",
        "{folder}/v.raw",
        "LIST",
        "v%02d.raw 1 3 1",
        "w.raw",
        "",
    ],
)
def test_voxels_are_one_file_beside_the_header(name, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "v.raw").write_bytes(ARRAY.tobytes())
    name = name.format(folder=tmp_path)
    path = write(tmp_path / "in", "in.mhd", f"{META}ElementDataFile = {name}\n")
    refused(path, "which is not a file beside it|cannot be read")
    with pytest.raises(UserError, match="which is not a file beside it"):
        files_of(path)


def test_header_size_is_a_number(tmp_path):
    header = f"{META}HeaderSize = x\nElementDataFile = v.raw\n"
    refused(write(tmp_path, "in.mhd", header), "HeaderSize is x|cannot be read")
