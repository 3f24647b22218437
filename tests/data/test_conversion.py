"""Labelled volumes become data folders."""

import csv
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lungseg_jax.data.conversion import (
    _case,
    convert_volumes,
    find_labelled_volumes,
)
from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.data.preflight import check_folder
from lungseg_jax.runtime.errors import UserError

AFFINE = np.diag([-0.8, -0.7, 2.5, 1.0])  # slices are stored as radiologists see them
SHAPE = (12, 10, 4)


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def scan(seed=0):
    """Return an image in Hounsfield units and a label with the values 0, 1, 2 and 7."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 300, SHAPE).astype(np.int16)
    image[0, 0] = -1000
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 3:7, 1:], label[7:9, 3:7, 1:], label[10:, :2] = 1, 2, 7
    return image, label


def test_every_slice_becomes_a_pair(tmp_path):
    image, label = scan()
    paths = save(tmp_path / "a.nii.gz", image), save(tmp_path / "b.nii.gz", label)
    volumes = find_labelled_volumes(*paths)
    assert convert_volumes(volumes, tmp_path / "data", lung=[1, 2]) == (4, [])
    pairs = find_pairs(tmp_path / "data")
    assert [pair.name for pair in pairs] == ["a_z0", "a_z1", "a_z2", "a_z3"]
    with open_volume(paths[0]) as volume, open_volume(paths[1]) as labels:
        for k, pair in enumerate(pairs):
            found = read_slice(pair)
            np.testing.assert_array_equal(found.image, volume.read(k))
            assert found.image.dtype == np.int16
            np.testing.assert_array_equal(found.mask, np.isin(labels.read(k), [1, 2]))
    rows = list(csv.DictReader((tmp_path / "data/slices.csv").open()))
    assert rows[1] == {
        "name": "a_z1",
        "patient": "a",
        "row_mm": "0.7",
        "column_mm": "0.8",
    }
    checked = check_folder(tmp_path / "data", cache=None)
    assert set(checked.metadata.patients.values()) == {"a"}


def test_values_are_rounded_and_limited_to_those_of_the_files(tmp_path):
    image, label = scan()
    image = image.astype(np.float32)
    image[1, 1:3, 1] = -0.6, 40_000
    paths = save(tmp_path / "a.nii", image), save(tmp_path / "b.nii", label)
    convert_volumes(find_labelled_volumes(*paths), tmp_path / "data")
    found = read_slice(find_pairs(tmp_path / "data")[1])
    assert found.image[1:3, 1].tolist() == [-1, 32_767]


def test_converts_a_dataset_of_nnunet(tmp_path):
    for seed, case in enumerate(("lung_001", "lung_002")):
        image, label = scan(seed)
        save(tmp_path / f"imagesTr/{case}_0000.nii.gz", image)
        save(tmp_path / f"labelsTr/{case}.nii.gz", label)
    volumes = find_labelled_volumes(tmp_path / "imagesTr", tmp_path / "labelsTr")
    assert [v.case for v in volumes] == ["lung_001", "lung_002"]
    assert convert_volumes(volumes, tmp_path / "data", every=2) == (4, [])
    names = [pair.name for pair in find_pairs(tmp_path / "data")]
    assert names == ["lung_001_z0", "lung_001_z2", "lung_002_z0", "lung_002_z2"]


def test_without_a_spacing_of_every_volume_there_is_none(tmp_path):
    image, label = scan()
    for folder, array in (("images", image), ("labels", label)):
        save(tmp_path / folder / "a.nii", array)
        np.save(tmp_path / folder / "b.npy", array)
    volumes = find_labelled_volumes(tmp_path / "images", tmp_path / "labels")
    count, _ = convert_volumes(volumes, tmp_path / "data")
    metadata = check_folder(tmp_path / "data").metadata
    assert set(metadata.patients.values()) == {"a", "b"}
    assert len(metadata.patients) == count and not metadata.spacings


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda i, la: (i, la[:, :, :3]), "different sizes or geometries"),
        (lambda i, la: (i // 4 + 250, la), "gray values|values as CT files"),
        (lambda i, la: (i, la * 0), "1 label without lung:\n  .*b.nii"),
        (lambda i, la: (i, la * np.float32(0.5)), "(?s)not whole.*threshold to prob"),
        (lambda i, la: (i, i), "negative or not whole"),
        (lambda i, la: (i, la * (la == 7)), "1 label without lung:\n  .*b.nii"),
    ],
)
def test_refuses_what_does_not_fit_and_leaves_nothing(change, message, tmp_path):
    image, label = change(*scan())
    paths = save(tmp_path / "a.nii", image), save(tmp_path / "b.nii", label)
    with pytest.raises(UserError, match=message):
        convert_volumes(find_labelled_volumes(*paths), tmp_path / "data", lung=[1, 2])
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii", "b.nii"}


def test_a_case_without_lung_is_converted_and_named(tmp_path):
    for case, share in (("a", 1), ("b", 0)):
        image, label = scan()
        save(tmp_path / f"images/{case}.nii", image)
        save(tmp_path / f"labels/{case}.nii", label * np.uint8(share))
    volumes = find_labelled_volumes(tmp_path / "images", tmp_path / "labels")
    assert convert_volumes(volumes, tmp_path / "data", lung=[1]) == (8, ["b"])
    with pytest.raises(UserError, match="2 labels without lung") as e:
        convert_volumes(volumes, tmp_path / "other", lung=[1], every=4)  # only slice 0
    assert "other values" in e.value.remedy and "a lower --every" in e.value.remedy


def test_a_slice_of_bone_is_no_reason_to_refuse_a_scan(tmp_path):
    image, label = scan()
    image[:3, :, 1] = 1500
    paths = save(tmp_path / "a.nii", image), save(tmp_path / "b.nii", label)
    assert convert_volumes(find_labelled_volumes(*paths), tmp_path / "data")[0] == 4
    with pytest.raises(UserError, match="a.nii has values as CT files store") as e:
        save(paths[0], image + np.int16(1024))
        convert_volumes(find_labelled_volumes(*paths), tmp_path / "other")
    assert "network" not in str(e.value)


@pytest.mark.parametrize("mm", [0.005, 200])
def test_refuses_a_spacing_that_slices_csv_would_not_accept(mm, tmp_path):
    image, label = scan()
    affine = np.diag([-mm, -0.7, 2.5, 1.0])
    paths = [save(tmp_path / f"{n}.nii", a, affine) for n, a in zip("ab", scan())]
    with pytest.raises(UserError, match=f"a.nii has voxels of {mm:g} x 0.7"):
        convert_volumes(find_labelled_volumes(*paths), tmp_path / "data")


@pytest.mark.parametrize("name", [".h.nii", "_0000.nii", " a.nii"])
def test_refuses_a_case_that_cannot_name_files(name, tmp_path):
    image, label = scan()
    paths = save(tmp_path / name, image), save(tmp_path / "label.nii", label)
    with pytest.raises(UserError, match="the case of .*nii would be '") as e:
        find_labelled_volumes(*paths)
    assert "rename" in e.value.remedy


def test_a_folder_is_named_as_it_is_called(tmp_path, monkeypatch):
    """`..` has a name, and a link one of its own."""
    (tmp_path / "patient/label").mkdir(parents=True)
    (tmp_path / "link").symlink_to("patient")
    monkeypatch.chdir(tmp_path / "patient/label")
    names = {"..": "patient", ".": "label", "../../link": "link"}
    assert {path: _case(Path(path)) for path in names} == names


def test_slices_of_numpy_are_volumes_of_one(tmp_path):
    image, label = scan()
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", array[..., 1])
    folders = tmp_path / "images", tmp_path / "labels"
    for i, paths in enumerate((folders, [folder / "a.npy" for folder in folders])):
        volumes = find_labelled_volumes(*paths)
        assert convert_volumes(volumes, tmp_path / f"data{i}") == (1, [])
    with pytest.raises(UserError, match="a.png is not a volume") as e:
        (tmp_path / "a.png").touch()
        find_labelled_volumes(tmp_path / "a.png", folders[1] / "a.npy")
    assert ".npy" in e.value.rule and "2d_images/" in e.value.remedy


def test_names_files_without_a_partner(tmp_path):
    image, label = scan()
    save(tmp_path / "images/a.nii", image)
    save(tmp_path / "labels/b.nii", label)
    with pytest.raises(UserError, match="2 files without a partner") as e:
        find_labelled_volumes(tmp_path / "images", tmp_path / "labels")
    assert "a.nii" in e.value.what and "b.nii" in e.value.what
    assert "rename the files" in e.value.remedy
    with pytest.raises(UserError, match="is not a folder of volumes"):
        find_labelled_volumes(tmp_path / "images/a.nii", tmp_path / "labels")
    with pytest.raises(UserError, match="does not exist") as e:
        find_labelled_volumes(tmp_path / "nowhere", tmp_path / "labels")
    assert f"a relative one starts at {Path.cwd()}" in e.value.remedy
    with pytest.raises(
        UserError, match=r"(?s)has no volumes.*rule: .*\.nii\.gz.*imagesTr/"
    ):
        find_labelled_volumes(tmp_path, tmp_path)
    save(tmp_path / "images/b_0000.nii.gz", image)
    save(tmp_path / "images/b.nii", image)
    with pytest.raises(UserError, match="are both the case b"):
        find_labelled_volumes(tmp_path / "images", tmp_path / "labels")


def test_labels_without_an_image_are_left_out(tmp_path, capsys):
    """As where the labels of all parts of a dataset are in one folder."""
    image, label = scan()
    save(tmp_path / "images/a.nii", image)
    for name in "abc":
        save(tmp_path / f"labels/{name}.nii", label)
    (found,) = find_labelled_volumes(tmp_path / "images", tmp_path / "labels")
    assert found.case == "a"
    said = f"skipped: {tmp_path}/labels/b.nii and 1 more: no image of that name\n"
    assert capsys.readouterr().out == said


def test_what_is_not_converted_is_said(tmp_path, capsys):
    image, label = scan()
    save(tmp_path / "images/a.nii", image)
    save(tmp_path / "labels/a.nii", label)
    (tmp_path / "images/b.mgz").touch()
    (tmp_path / "images/c").mkdir()
    (tmp_path / "labels/readme.txt").touch()
    assert len(find_labelled_volumes(tmp_path / "images", tmp_path / "labels")) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "images/b.mgz: unsupported; save it as .nii.gz" in said[0]
    assert "images/c: not the folder of a DICOM series" in said[1]


def test_names_match_however_their_accents_are_stored(tmp_path):
    image, label = scan()
    save(tmp_path / "images" / unicodedata.normalize("NFC", "\u00e9.nii"), image)
    save(tmp_path / "labels" / unicodedata.normalize("NFD", "\u00e9.nii"), label)
    assert len(find_labelled_volumes(tmp_path / "images", tmp_path / "labels")) == 1


def test_refuses_two_labels_of_one_name(tmp_path):
    image, label = scan()
    composed, apart = (unicodedata.normalize(f, "\u00e9.nii") for f in ("NFC", "NFD"))
    save(tmp_path / "images" / composed, image)
    for name in (composed, apart):
        save(tmp_path / "labels" / name, label)
    with pytest.raises(UserError, match="how accents are stored are one name"):
        find_labelled_volumes(tmp_path / "images", tmp_path / "labels")
