"""Volumes are read in the radiologist's orientation and written back in their own."""

import contextlib
import errno
import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volume_writer import VolumeWriter, remove_leftovers
from lungseg_jax.data.io.volumes import Volume, require_same_grid
from lungseg_jax.runtime.errors import UserError

# (axis of the patient, sign) of each axis of the file: 6 orders, 8 signs.
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("RL", "PA", "IS"))
    for codes in itertools.product(*order)
]


def voxels(shape=(5, 6, 7), dtype=np.int16):
    """Distinct values, which no two orientations put in the same order."""
    values = np.arange(np.prod(shape)).reshape(shape)
    return (values - values.size // 2).astype(dtype)


def write_nifti(path, codes, array=None, oblique=False):
    """Write a NIfTI file whose axes run towards `codes`, with different spacings."""
    array = voxels() if array is None else array
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    affine = np.eye(4)
    for axis, (patient, sign) in enumerate(wanted):
        affine[:3, axis] = 0
        affine[int(patient), axis] = sign * (0.7, 0.8, 2.5)[axis]
    if oblique:
        angle = 0.2
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    affine[:3, 3] = (-12.5, 30.25, 7.0)
    assert oblique or nib.aff2axcodes(affine) == tuple(codes)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def expected_slices(path):
    """Return `[slice row column]` towards superior, posterior, left, by nibabel."""
    image = nib.load(path)
    now = nib.io_orientation(image.affine)
    wanted = nib.orientations.axcodes2ornt(("S", "P", "L"))
    turn = nib.orientations.ornt_transform(now, wanted)
    return nib.orientations.apply_orientation(np.asarray(image.dataobj), turn)


def write_mask(volume, target, dtype=np.uint8):
    """Write the positive voxels of a volume."""
    with VolumeWriter(target, volume, dtype) as out:
        for k, image in enumerate(volume.slices()):
            out.write(k, (image > 0).astype(dtype))


def refused(path, match):
    with pytest.raises(UserError, match=match), open_volume(path):
        pass


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_reads_and_writes_every_orientation(codes, tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    source = write_nifti(tmp_path / "in.nii.gz", codes)
    with open_volume(source) as volume:
        slices = np.stack(list(volume.slices()))
        np.testing.assert_array_equal(slices, expected_slices(source))
        assert (volume.count, *volume.shape) == slices.shape
        spacings = dict(zip(codes, (0.7, 0.8, 2.5), strict=True))
        axes = ("IS", "PA", "RL")
        spacing = [next(mm for c, mm in spacings.items() if c in pair) for pair in axes]
        np.testing.assert_allclose(volume.spacing_mm, spacing, rtol=1e-6)
        for target in ("out.nii", "out.nii.gz"):
            write_mask(volume, tmp_path / target)
    before = nib.load(source)
    for target in ("out.nii", "out.nii.gz"):
        after = nib.load(tmp_path / target)
        np.testing.assert_allclose(after.affine, before.affine, rtol=1e-6, atol=1e-5)
        assert after.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(
            np.asarray(after.dataobj), np.asarray(before.dataobj) > 0
        )


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("oblique", [False, True])
def test_a_grid_is_the_same_in_any_order_of_its_voxels(codes, oblique, tmp_path):
    source = nib.load(write_nifti(tmp_path / "a.nii", "LPS", oblique=oblique))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(source.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    nib.save(source.as_reoriented(turn), tmp_path / "b.nii")
    moved = source.affine.copy()
    moved[1, 3] += 0.2
    elsewhere = nib.Nifti1Image(np.asarray(source.dataobj), moved)
    nib.save(elsewhere.as_reoriented(turn), tmp_path / "c.nii")
    with (
        open_volume(tmp_path / "a.nii") as a,
        open_volume(tmp_path / "b.nii") as b,
        open_volume(tmp_path / "c.nii") as c,
    ):
        np.testing.assert_array_equal([*a.slices()], [*b.slices()])
        require_same_grid(a, b)
        with pytest.raises(UserError, match="different sizes or geometries"):
            require_same_grid(a, c)


def test_keeps_the_geometry_of_an_oblique_volume(tmp_path):
    source = write_nifti(tmp_path / "in.nii", "LPS", oblique=True)
    with open_volume(source) as volume:
        write_mask(volume, tmp_path / "out.nii.gz")
    before, after = nib.load(source), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(after.dataobj), np.asarray(before.dataobj) > 0
    )


@pytest.mark.parametrize("degrees", [0, 10, 46, 90, 170])
def test_measures_how_oblique_a_volume_is(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    expected = min(degrees % 90, 90 - degrees % 90)
    for direction in (
        (cos, -sin, 0, sin, cos, 0, 0, 0, 1),
        (0, 0, 1, cos, -sin, 0, sin, cos, 0),
    ):
        geometry = Geometry((2, 2, 2), direction=direction)
        assert geometry.tilt == pytest.approx(expected, abs=1e-5)


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


def test_removes_the_working_folders_of_its_targets_only(tmp_path):
    leftovers = ".s1.nii.gz.azxswin7", ".s1_entropy.nii.gz.a_b1c2d3"
    others = ".s2.nii.gz.azxswin7", ".s1.nii.gz.copy", "s1.nii.gz.azxswin7"
    others += (".s1.nii.gz.abcdefgh",)
    for name in (*leftovers, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plain").touch()
    (tmp_path / others[-1] / "notes.txt").touch()
    targets = [tmp_path / name for name in ("s1.nii.gz", "s1_entropy.nii.gz")]
    remove_leftovers([*targets, tmp_path / "nowhere" / "s1.nii.gz"])
    assert {path.name for path in tmp_path.iterdir()} == set(others)


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
    image = sitk.Image((4, 4, 4), sitk.sitkInt16)
    sitk.WriteImage(image, str(tmp_path / "c.mha"))
    refused((tmp_path / "c.mha").rename(tmp_path / "c\n.mha"), "line break")


def test_refuses_a_header_whose_voxels_are_in_another_file(tmp_path):
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkInt16), str(tmp_path / "a.mha"))
    head = (tmp_path / "a.mha").read_bytes().split(b"ElementDataFile")[0]
    (tmp_path / "secret.raw").write_bytes(bytes(128))
    (tmp_path / "b.mha").write_bytes(head + b"ElementDataFile = secret.raw\n")
    refused(tmp_path / "b.mha", "another file")
    nrrd = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
    (tmp_path / "c.nrrd").write_text(f"{nrrd}endian: little\ndata file: secret.raw\n\n")
    refused(tmp_path / "c.nrrd", "another file")


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


def test_simpleitk_prints_nothing_about_a_damaged_header(tmp_path, capfd):
    """MetaIO prints "ElementType required and not defined"."""
    file = tmp_path / "in.mha"
    file.write_bytes(b"ObjectType = Image\nNDims = 3\nDimSize = 1 2\n")
    with pytest.raises(UserError, match="cannot be read"), open_volume(file):
        pass
    assert capfd.readouterr() == ("", "")
