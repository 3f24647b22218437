"""Output files per input, and the errors raised before a network is loaded."""

import os

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series, write_without_image  # of tests/data/io/
from pydicom.uid import MediaStorageDirectoryStorage

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.data.io.images import write_image
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.inference.prediction_task import PredictionTask
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


def assert_refused(match, *paths, **options):
    with pytest.raises(UserError, match=match):
        plan_outputs(*paths, **options)


def test_maps_files_to_files_and_folders_to_folders(images, tmp_path):
    out = tmp_path / "out"
    assert plan_outputs(images, out) == [
        PredictionTask(images / name, out / name, is_volume=False)
        for name in ("a.tif", "b.tif")
    ]
    source = images / "a.tif"
    assert plan_outputs(source, tmp_path / "m.png") == [
        PredictionTask(source, tmp_path / "m.png", False)
    ]
    out.mkdir()
    assert plan_outputs(source, out) == [PredictionTask(source, out / "a.tif", False)]


def test_maps_a_volume_to_a_volume(volume, tmp_path):
    for name in ("m.nii", "m.nii.gz", "m.mha", "M.NRRD"):
        assert plan_outputs(volume, tmp_path / name) == [
            PredictionTask(volume, tmp_path / name, True)
        ]
    (tmp_path / "out").mkdir()
    (task,) = plan_outputs(volume, tmp_path / "out", format=".mha")
    assert task.target == tmp_path / "out" / "scan.mha"
    assert_refused("cannot be", volume, tmp_path / "m.png")
    (task,) = plan_outputs(volume, tmp_path / "m")  # no suffix: a folder to be created
    assert task.target == tmp_path / "m" / "scan.nii.gz"


@pytest.mark.parametrize("suffix,of_mask", [(".mhd", ".mha"), (".nhdr", ".nrrd")])
def test_a_mask_is_one_file(suffix, of_mask, tmp_path):
    source, target = tmp_path / f"in/scan{suffix}", tmp_path / f"out/scan{of_mask}"
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.Image((4, 4, 3), sitk.sitkInt16), str(source))
    for where in (source, source.parent):
        assert plan_outputs(where, target.parent) == [
            PredictionTask(source, target, True)
        ]
    with pytest.raises(UserError) as e:
        plan_outputs(source, target.with_suffix(suffix))
    assert f"name it {target}" in e.value.remedy


def test_an_array_is_no_mask_of_what_has_a_place(volume, series, tmp_path):
    """It would not say how its axes run."""
    for source in (volume, series):
        assert_refused("cannot be", source, tmp_path / "m.npy")
        assert_refused("cannot be", source, tmp_path, format=".npy")


def test_maps_a_folder_of_slices_and_volumes(images, volume, tmp_path):
    volume.rename(images / "scan.nii.gz")
    tasks = plan_outputs(images, tmp_path / "out")
    assert [(task.target.name, task.is_volume) for task in tasks] == [
        ("a.tif", False),
        ("b.tif", False),
        ("scan.nii.gz", True),
    ]


def test_maps_a_folder_of_dicom_series(tmp_path):
    for name in ("anna", "bert"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "1").write_bytes(bytes(128) + b"DICM")
    tasks = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert [(task.source.name, task.target.name, task.is_volume) for task in tasks] == [
        ("anna", "anna.nii.gz", True),
        ("bert", "bert.nii.gz", True),
    ]


def test_finds_series_below_others_and_on_discs(volume, tmp_path):
    patients = tmp_path / "patients"
    for name in ("disc/IMG", "scan/SE2"):
        (patients / name).mkdir(parents=True)
        write_series(patients / name)
    write_series(patients / "scan")
    volume.rename(patients / "scan" / "old.nii.gz")
    index = patients / "disc" / "DICOMDIR"
    write_without_image(index, MediaStorageDirectoryStorage)
    found = ["disc/IMG.nii.gz", "scan.nii.gz", "scan/SE2.nii.gz", "scan/old.nii.gz"]
    out = tmp_path / "out"
    tasks = plan_outputs(patients, out)
    assert sorted(str(task.target.relative_to(out)) for task in tasks) == found
    (task,) = plan_outputs(index.parent, out)
    assert task.target == out / "IMG.nii.gz"
    assert_refused("has no series 1.2", index.parent, out, series="1.2")


def test_a_series_does_not_hide_what_is_below(volume, tmp_path):
    scan, out = tmp_path / "scan", tmp_path / "out"
    (scan / "SE2").mkdir(parents=True)
    (scan / "notes").mkdir()
    write_series(scan)
    (task,) = plan_outputs(scan, tmp_path / "m.nii.gz")  # nothing is below
    assert (task.source, task.target) == (scan, tmp_path / "m.nii.gz")
    write_series(scan / "SE2")
    volume.rename(scan / "SE2" / "old.nii.gz")
    tasks = plan_outputs(scan, out)
    found = ["scan.nii.gz", "SE2.nii.gz", "SE2/old.nii.gz"]
    assert [str(task.target.relative_to(out)) for task in tasks] == found
    assert_refused("names a single file", scan, tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    "uid", ["../../../mine", "/elsewhere/mine", "..", ".hidden", "1" * 99]
)
def test_a_uid_of_any_form_leads_nowhere_else(uid, tmp_path):
    """Files of others choose it; a mask is in the folder, and not hidden."""
    series = tmp_path / "in" / "anna"
    series.mkdir(parents=True)
    write_series(series, uid="1.2.3")
    for file in series.iterdir():
        file.rename(file.with_name(f"a{file.name}"))
    write_series(series, uid=uid)
    tasks = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert {task.series for task in tasks} == {"1.2.3", uid}
    for task in tasks:
        assert task.target.resolve().parent == tmp_path / "out" / "anna"
        assert not task.target.name.startswith(".")


def test_folders_without_the_chosen_series_are_left_out(volume, tmp_path):
    patients = tmp_path / "patients"
    patients.mkdir()
    uids = [write_series(patients / name) for name in ("anna", "bert", "carl")]
    for place in (patients, patients / "anna"):
        (place / "scan.nii.gz").write_bytes(volume.read_bytes())
    (task,) = plan_outputs(patients, tmp_path / "out", series=uids[1])
    assert (task.source, task.series) == (patients / "bert", uids[1])
    assert_refused("no effect on the file", volume, tmp_path / "o", series=uids[1])
    assert_refused("has no series 1.2", patients, tmp_path / "out", series="1.2")


def test_what_cannot_be_read_below_is_an_input(volume, tmp_path):
    """It is skipped when it is read, and named at the end."""
    folder = tmp_path / "in" / "anna"
    folder.mkdir(parents=True)
    volume.rename(folder / "scan.nii.gz")
    np.save(folder / "features.npy", np.zeros(3))
    np.save(folder / "rois.npy", np.array([{}], object))
    (folder / "old.nii").symlink_to("annexed.nii")
    tasks = plan_outputs(tmp_path / "in", tmp_path / "out", format=".nii.gz")
    names = ["features.npy", "old.nii", "rois.npy", "scan.nii.gz"]
    assert [task.source.name for task in tasks] == names
    for task in tasks[:3]:
        with pytest.raises(UserError), open_volume(task.source):
            pass


def test_a_series_of_dead_links_is_an_input(tmp_path):
    """As git-annex leaves it: unreadable, not missing."""
    folder = tmp_path / "in" / "anna"
    folder.mkdir(parents=True)
    (folder / "IM0001").symlink_to("annexed")
    for source in (tmp_path / "in", folder):
        (task,) = plan_outputs(source, tmp_path / "out")
        assert task.source == folder and task.is_volume
    with pytest.raises(UserError, match="IM0001 is a link to a file that does not"):
        with open_volume(folder):
            pass
    (folder / "IM0001").rename(folder / "notes.txt")
    assert_refused("contains no images", tmp_path / "in", tmp_path / "out")


def test_what_is_in_no_known_format_is_said(volume, tmp_path, capsys):
    files = {
        "img": ("v.hdr", "v.img", "w.mgz"),
        "bare": ("IM0001", "IM0002"),
        "texts": ("report.txt", "report.pdf"),
        "scan": ("notes", "old.nii", "study.zip"),
        "failed": (".DS_Store",),
        "study/series": (),
    }
    for folder, names in files.items():
        (tmp_path / "in" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "in" / folder / name).write_bytes(volume.read_bytes())
    (task,) = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert task.source.name == "old.nii"
    bare, failed, img, archive, series = capsys.readouterr().out.splitlines()
    place = f"skipped: {tmp_path / 'in'}"
    assert failed == f"{place}/failed: empty"
    assert series == f"{place}/study/series: empty"
    assert bare == f"{place}/bare: IM0001 and 1 more: unknown format"
    assert archive == f"{place}/scan/study.zip: unsupported; unpack it first"
    assert img.startswith(
        f"{place}/img/v.hdr and 2 more: unsupported; save it as .nii.gz"
    )


def test_refuses_other_images_beside_a_dicom_series(images, tmp_path):
    (images / "1").write_bytes(bytes(128) + b"DICM")
    assert_refused("2 other images, such as a.tif", images, tmp_path / "out")


def test_a_segmentation_may_be_beside_a_dicom_series(series, tmp_path, capsys):
    (series / "lungs.seg.nrrd").touch()
    (task,) = plan_outputs(series, tmp_path / "m.nii.gz")
    assert task.source == series
    assert (
        capsys.readouterr().out == f"skipped: {series}/lungs.seg.nrrd: segmentation\n"
    )


def test_refuses_a_pipe_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    assert_refused("is not a regular file", tmp_path / "pipe.nii", tmp_path / "m.nii")


def test_refuses_outputs_that_cannot_be_created(images, volume, tmp_path):
    source = images / "a.tif"
    (tmp_path / "m.png").mkdir()
    assert_refused("is not a folder", source, volume / "in" / "m.png")
    assert_refused(
        "is a folder", images, tmp_path / "o", extra_outputs=(tmp_path / "m.png",)
    )


def test_lists_subfolders_if_a_folder_contains_no_images(images, tmp_path):
    with pytest.raises(UserError) as e:
        plan_outputs(tmp_path, tmp_path.parent / "out")
    assert e.value.remedy == "name one of its subfolders (in)."


def test_number_of_dimensions_tells_array_slices_from_volumes(tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((4, 4), np.int16))
    np.save(tmp_path / "three.npy", np.zeros((2, 4, 4), np.int16))
    (two,) = plan_outputs(tmp_path / "two.npy", tmp_path / "m.png")
    (three,) = plan_outputs(tmp_path / "three.npy", tmp_path / "m.npy")
    assert not two.is_volume and three.is_volume
    assert_refused("cannot be", tmp_path / "three.npy", tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    "source,target,suggested",
    [
        ("scan.nii.gz", "m.png", "m.nii.gz"),
        ("scan.nii.gz", "m.v2.jpg", "m.v2.nii.gz"),
        ("in/a.tif", "m.nii.gz", "m.tif"),
        ("series", "m.png", "m.nii.gz"),
    ],
)
def test_suggests_a_name_for_a_mask(
    source, target, suggested, images, volume, series, tmp_path
):
    with pytest.raises(UserError) as e:
        plan_outputs(tmp_path / source, tmp_path / target)
    assert e.value.remedy.startswith(f"name it {tmp_path / suggested};")


def test_format_sets_the_suffix_of_masks_in_a_folder(images, tmp_path):
    tasks = plan_outputs(images, tmp_path / "out", format="png")  # or ".png"
    assert [task.target.name for task in tasks] == ["a.png", "b.png"]
    assert_refused("the format .jpg", images, tmp_path / "out", format=".jpg")
    assert_refused(
        "sets its format", images / "a.tif", tmp_path / "a.tif", format=".png"
    )


def test_names_maps_and_overlays_after_the_mask(images, volume, tmp_path):
    options = {"maps": ["probability", "uncertainty"], "overlay": True}
    (task,) = plan_outputs(images / "a.tif", tmp_path / "m.png", **options)
    assert [path.name for path in task.outputs] == [
        "m.png",
        "m_probability.tif",
        "m_uncertainty.tif",
        "m_overlay.png",
    ]
    (task,) = plan_outputs(volume, tmp_path / "m.nii.gz", **options)
    assert task.maps["uncertainty"].name == "m_uncertainty.nii.gz"
    assert task.page.name == "m_overlay.html" and task.page in task.outputs


def test_refuses_to_overwrite_an_input_under_any_name(images, volume, tmp_path):
    assert_refused("would overwrite the input", volume, volume, overwrite=True)
    source = images / "a.tif"
    assert_refused(
        "would overwrite the input",
        source,
        tmp_path / "m.png",
        extra_outputs=(source,),
        overwrite=True,
    )


def test_refuses_masks_among_their_inputs(images, series, tmp_path):
    (tmp_path / "link").symlink_to(images)
    for target in (images, images / "masks", tmp_path / "link" / "new" / "masks"):
        assert_refused(
            "not outside of the input folder", images, target, overwrite=True
        )
    assert_refused("not outside of the input folder", series, series / "mask.nii.gz")
    assert_refused(
        "not outside of the input folder", series, series / "deeper" / "m.nii.gz"
    )
    assert plan_outputs(images / "a.tif", images / "m.png")  # beside a single file
    assert plan_outputs(images, tmp_path / "in_masks")


def test_refuses_further_outputs_in_a_dicom_series(series, tmp_path):
    options = {"extra_outputs": [series / "t.csv"]}
    assert_refused("not outside of", series, tmp_path / "m.nii.gz", **options)


def test_refuses_further_outputs_among_the_inputs(images, tmp_path):
    for path in (images / "t.csv", images / "below" / "t.json"):
        assert_refused(
            f"{path} is not outside of the input folder",
            images,
            tmp_path / "out",
            extra_outputs=[path],
            overwrite=True,
        )


def test_accepts_a_target_that_links_to_itself(images, tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (task,) = plan_outputs(images / "a.tif", tmp_path / "loop.png")
    assert task.target == tmp_path / "loop.png"


def test_refuses_existing_outputs_unless_overwriting(images, tmp_path):
    (tmp_path / "m.png").touch()
    assert_refused(
        "^error: 1 output already there:", images / "a.tif", tmp_path / "m.png"
    )
    assert plan_outputs(images / "a.tif", tmp_path / "m.png", overwrite=True)
    (tmp_path / "m_overlay.png").touch()
    assert_refused(
        "^error: 2 outputs", images / "a.tif", tmp_path / "m.png", overlay=True
    )


def test_names_the_inputs_that_have_an_output_in_common(images, tmp_path):
    for name in ("c.mha", "c.nrrd"):
        sitk.WriteImage(sitk.Image((4, 4, 3), sitk.sitkInt16), images / name)
    out = tmp_path / "out"
    assert plan_outputs(images, out)
    with pytest.raises(UserError) as e:
        plan_outputs(images, out, overlay=True)
    assert str(e.value) == (
        f"error: {images}/c.mha and {images}/c.nrrd would both be written to "
        f"{out}/c_overlay.png.\n"
        "rule:  each output belongs to one input.\n"
        "fix:   rename one of the inputs, or predict it into another folder."
    )
    for name in ("a_overlay.tif", "b_overlay.tif"):
        write_image(images / name, np.zeros((4, 4), np.int16))
    (images / "c.nrrd").unlink()
    (images / "c.mha").unlink()
    assert_refused(
        f"(?s)2 faults in {images}:.*a.tif and .*a_overlay.tif would.*b.tif and ",
        images,
        out,
        format=".png",
        overlay=True,
    )


@pytest.mark.parametrize(
    "name,message",
    [
        ("none.tif", "does not exist"),
        ("notes.txt", "in a known format"),
        ("scan.mgz", "(?s)in a known format.*save it as .nii.gz"),
        ("study.zip", "(?s)in a known format.*unpack it first"),
        ("0.dcm", "0.dcm is empty"),
        ("", "contains no images"),
    ],
)
def test_refuses_unusable_inputs(name, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "scan.mgz").write_bytes(b"MGZ")
    (tmp_path / "study.zip").write_bytes(b"PK")
    (tmp_path / "0.dcm").touch()
    source, target = tmp_path / (name or "empty"), tmp_path / ("m.png" if name else "")
    assert_refused(message, source, target)


# --- segmentations for viewers ---


@pytest.fixture
def series(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1").write_bytes(bytes(128) + b"DICM")
    return tmp_path / "series"


def test_the_mask_of_a_dicom_file_has_its_name_without_the_suffix(series, tmp_path):
    file = (series / "1").rename(tmp_path / "IM001.dcm")
    (task,) = plan_outputs(file, tmp_path / "out")
    assert task.target.name == "IM001.nii.gz"


@pytest.mark.parametrize("name", ["m.dcm", "m.seg.dcm", "M.SEG.DCM"])
def test_maps_a_series_to_a_dicom_segmentation(name, series, tmp_path):
    options = {"maps": ["probability"], "overlay": True}
    for source in (series, series / "1"):
        (task,) = plan_outputs(source, tmp_path / name, **options)
        assert task.is_volume and task.target == tmp_path / name
        stem = name.partition(".")[0]
        assert task.maps["probability"].name == f"{stem}_probability.nii.gz"
        assert task.page.name == f"{stem}_overlay.html"


def test_only_dicom_becomes_a_dicom_segmentation(images, volume, series, tmp_path):
    for source in (volume, images / "a.tif"):
        assert_refused("is not DICOM", source, tmp_path / "m.dcm")
    assert_refused("names a single file", images, tmp_path / "m.dcm")
    (tmp_path / "patients").mkdir()
    series.rename(tmp_path / "patients" / "anna")
    out = tmp_path / "out"
    (task,) = plan_outputs(tmp_path / "patients", out, format=".dcm")
    assert task.target == out / "anna.dcm"


def test_a_dicom_segmentation_needs_highdicom(series, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs highdicom, which is not installed") as e:
        plan_outputs(series, tmp_path / "m.dcm")
    assert "[dicom]" in e.value.remedy
    assert plan_outputs(series, tmp_path / "m.nii.gz")


def test_segmentations_in_a_folder_are_not_inputs(volume, tmp_path, capsys):
    """3D Slicer saves them beside the scan."""
    (tmp_path / "in" / "anna").mkdir(parents=True)
    for folder in (tmp_path / "in", tmp_path / "in" / "anna"):
        for name in ("scan.nii.gz", "scan.seg.nrrd"):
            (folder / name).write_bytes(volume.read_bytes())
    tasks = plan_outputs(tmp_path / "in", tmp_path / "out")
    assert [task.source.name for task in tasks] == ["scan.nii.gz"] * 2
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"skipped: {tmp_path / 'in' / 'scan.seg.nrrd'}: segmentation"
    assert "anna" in second


def test_maps_of_a_segmentation_for_slicer_are_plain_volumes(volume, tmp_path):
    options = {"maps": ["probability"], "overlay": True}
    (task,) = plan_outputs(volume, tmp_path / "m.seg.nrrd", **options)
    names = [path.name for path in task.outputs]
    assert names[:2] == ["m.seg.nrrd", "m_probability.nrrd"]
    assert "m_overlay.png" in names
