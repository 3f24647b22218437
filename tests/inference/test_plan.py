"""Which input gives which outputs, and what is refused before a network is loaded."""

import os

import numpy as np
import pytest
import SimpleITK as sitk

from lungseg_jax.data.io.images import write_image
from lungseg_jax.inference.plan import PredictionTask, plan_outputs
from lungseg_jax.runtime.errors import UserError


@pytest.fixture
def images(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_image(tmp_path / "in" / f"{name}.tif", np.zeros((4, 4), np.int16))
    return tmp_path / "in"


@pytest.fixture
def volume(tmp_path):
    image = sitk.Image((4, 4, 3), sitk.sitkInt16)
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    return tmp_path / "scan.nii.gz"


def refused(match, *words, **options):
    with pytest.raises(UserError, match=match):
        plan_outputs(*words, **options)


def test_a_file_for_a_file_and_a_folder_for_a_folder(images, tmp_path):
    out = tmp_path / "out"
    assert plan_outputs(images, out) == [
        PredictionTask(images / name, out / name, is_volume=False)
        for name in ("a.tif", "b.tif")
    ]
    one = images / "a.tif"
    assert plan_outputs(one, tmp_path / "m.png") == [
        PredictionTask(one, tmp_path / "m.png", False)
    ]
    out.mkdir()
    assert plan_outputs(one, out) == [PredictionTask(one, out / "a.tif", False)]


def test_volumes(volume, tmp_path):
    for name in ("m.nii", "m.nii.gz", "m.mha", "M.NRRD"):
        assert plan_outputs(volume, tmp_path / name) == [
            PredictionTask(volume, tmp_path / name, True)
        ]
    (tmp_path / "out").mkdir()
    (job,) = plan_outputs(volume, tmp_path / "out", format=".mha")
    assert job.target == tmp_path / "out" / "scan.mha"
    refused("cannot be", volume, tmp_path / "m.png")
    (job,) = plan_outputs(
        volume, tmp_path / "m"
    )  # without a suffix: a folder, made when needed
    assert job.target == tmp_path / "m" / "scan.nii.gz"


def test_a_folder_of_slices_and_volumes(images, volume, tmp_path):
    volume.rename(images / "scan.nii.gz")
    jobs = plan_outputs(images, tmp_path / "out")
    assert [(job.target.name, job.is_volume) for job in jobs] == [
        ("a.tif", False),
        ("b.tif", False),
        ("scan.nii.gz", True),
    ]


def test_a_folder_of_dicom_series(tmp_path):
    for name in ("anna", "bert"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1").write_bytes(bytes(128) + b"DICM")
    jobs = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert [(job.source.name, job.target.name, job.is_volume) for job in jobs] == [
        ("anna", "anna.nii.gz", True),
        ("bert", "bert.nii.gz", True),
    ]
    refused("over, or into, an input", tmp_path / "in", tmp_path / "in" / "anna")


def test_a_series_with_other_images_beside_it_is_refused(images, tmp_path):
    (images / "1").write_bytes(bytes(128) + b"DICM")
    refused("2 other images, a.tif for one", images, tmp_path / "out")


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    refused("is no file", tmp_path / "pipe.nii", tmp_path / "m.nii")


def test_outputs_that_cannot_be_made(images, volume, tmp_path):
    one = images / "a.tif"
    (tmp_path / "m.png").mkdir()
    refused("is no folder", one, volume / "in" / "m.png")
    refused("is a folder", images, tmp_path / "o", others=(tmp_path / "m.png",))


def test_a_folder_of_folders_says_which(images, tmp_path):
    with pytest.raises(UserError) as e:
        plan_outputs(tmp_path, tmp_path / "out")
    assert e.value.remedy == "name a folder in it (in)."


def test_arrays_are_slices_or_volumes(tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((4, 4), np.int16))
    np.save(tmp_path / "three.npy", np.zeros((2, 4, 4), np.int16))
    (two,) = plan_outputs(tmp_path / "two.npy", tmp_path / "m.png")
    (three,) = plan_outputs(tmp_path / "three.npy", tmp_path / "m.npy")
    assert not two.is_volume and three.is_volume
    refused("cannot be", tmp_path / "three.npy", tmp_path / "m.nii.gz")


def test_the_format_of_masks_in_a_folder(images, tmp_path):
    jobs = plan_outputs(images, tmp_path / "out", format="png")  # or ".png"
    assert [job.target.name for job in jobs] == ["a.png", "b.png"]
    refused("the format .jpg", images, tmp_path / "out", format=".jpg")
    refused("says its format", images / "a.tif", tmp_path / "a.tif", format=".png")


def test_other_files_beside_the_masks(images, volume, tmp_path):
    options = {"maps": ["probability", "uncertainty"], "overlay": True}
    (job,) = plan_outputs(images / "a.tif", tmp_path / "m.png", **options)
    assert [path.name for path in job.outputs] == [
        "m.png",
        "m_probability.tif",
        "m_uncertainty.tif",
        "m_overlay.png",
    ]
    (job,) = plan_outputs(volume, tmp_path / "m.nii.gz", **options)
    assert job.maps["uncertainty"].name == "m_uncertainty.nii.gz"


def test_an_input_is_not_written_to_by_any_name(images, volume, tmp_path):
    (tmp_path / "link").symlink_to(images)
    refused("over, or into, an input", images, tmp_path / "link", overwrite=True)
    refused("over, or into", volume, volume, overwrite=True)
    one = images / "a.tif"
    refused("over, or into", one, tmp_path / "m.png", others=(one,), overwrite=True)


def test_nothing_is_written_into_a_series(images, tmp_path):
    (images / "a.tif").rename(images / "slice")
    (images / "b.tif").unlink()
    (images / "slice").write_bytes(bytes(128) + b"DICM")
    refused("over, or into", images, images / "mask.nii.gz")


def test_a_target_that_is_a_link_to_itself(images, tmp_path):
    (tmp_path / "turn.png").symlink_to("turn.png")
    (job,) = plan_outputs(images / "a.tif", tmp_path / "turn.png")
    assert job.target == tmp_path / "turn.png"


def test_outputs_that_exist_are_counted(images, tmp_path):
    (tmp_path / "m.png").touch()
    refused("^error: 1 output already there:", images / "a.tif", tmp_path / "m.png")
    assert plan_outputs(images / "a.tif", tmp_path / "m.png", overwrite=True)
    (tmp_path / "m_overlay.png").touch()
    refused("^error: 2 outputs", images / "a.tif", tmp_path / "m.png", overlay=True)


def test_two_outputs_of_one_name(images, tmp_path):
    write_image(images / "a_overlay.tif", np.zeros((4, 4), np.int16))
    refused("have one name", images, tmp_path / "out", format=".png", overlay=True)


@pytest.mark.parametrize(
    "name,says",
    [
        ("none.tif", "does not exist"),
        ("notes.txt", "in a known format"),
        ("", "no images"),
    ],
)
def test_what_is_no_input(name, says, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    refused(
        says, tmp_path / (name or "empty"), tmp_path / "m.png" if name else tmp_path
    )
