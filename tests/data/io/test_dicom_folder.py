"""The DICOM files of a folder: the slices of each series, and what is not a slice."""

import os
from pathlib import Path

import pytest
from dicom_files import edit, stored, write_series, write_without_image
from pydicom.uid import (
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RawDataStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
)
from volume_files import refused

from lungseg_jax.data.io.formats import open_volume
from lungseg_jax.inference.plan import plan_outputs
from lungseg_jax.runtime.errors import UserError


def test_several_series_need_a_choice(tmp_path):
    first = write_series(tmp_path / "in", description="thin")
    for path in (tmp_path / "in").iterdir():
        path.rename(path.with_name(f"A{path.name}"))
    second = write_series(tmp_path / "in", array=stored()[:3], description="thick")
    with pytest.raises(UserError, match="has 2 series") as e:
        with open_volume(tmp_path / "in"):
            pass
    for word in (first, second, "thin", "thick", "6 slices", "3 slices"):
        assert word in e.value.what
    # Of the commands that read series, only one has this option.
    assert "lungseg predict with --series=UID" in e.value.remedy
    with open_volume(tmp_path / "in", series=second) as volume:
        assert volume.count == 3
    with pytest.raises(UserError, match="no series 1.2.3"):
        with open_volume(tmp_path / "in", series="1.2.3"):
            pass


def test_every_series_in_a_folder_of_patients_has_a_mask(tmp_path):
    patients = tmp_path / "patients"
    patients.mkdir()
    write_series(patients / "anna")
    uids = set()
    for description in ("thin", "thick"):
        uids.add(write_series(tmp_path / description, description=description))
        for file in (tmp_path / description).iterdir():
            target = patients / "bert" / f"{description} {file.name}"
            target.parent.mkdir(exist_ok=True)
            file.rename(target)
    tasks = plan_outputs(patients, tmp_path / "out")
    names = {str(task.target.relative_to(tmp_path / "out")) for task in tasks}
    assert names == {"anna.nii.gz", *(f"bert/{uid}.nii.gz" for uid in uids)}
    for task in tasks:
        with open_volume(task.source, series=task.series) as volume:
            assert volume.count == len(stored())


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("IM0009", None, "IM0009 is a link to a file that does not exist"),
        ("IM0009", b"", "IM0009 is empty"),
        ("IM0009", bytes(100), "IM0009 is damaged"),  # cut in its preamble
        ("IM0009.dcm", b"<html>", "IM0009.dcm is damaged"),
    ],
)
def test_no_file_of_a_series_is_left_out_silently(name, content, message, tmp_path):
    write_series(tmp_path / "in", skip=[5])
    file = tmp_path / "in" / name
    if content is None:
        file.symlink_to("annexed")
    else:
        file.write_bytes(content)
    refused(tmp_path / "in", message)


def test_a_file_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    write_series(tmp_path / "in")
    file = sorted((tmp_path / "in").iterdir())[2]

    def refuse(path, *arguments, open=Path.open):
        if path == file:
            raise PermissionError(13, "Permission denied")
        return open(path, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    refused(tmp_path / "in", f"{file.name} cannot be read: Permission denied")


def test_says_once_which_files_are_not_dicom(tmp_path, capsys):
    write_series(tmp_path / "in")
    for name in ("README", "SHA256", ".DS_Store", "notes.txt", "old.nii.gz"):
        (tmp_path / "in" / name).write_text("hello")
    (tmp_path / "in" / ".lock").symlink_to("nowhere")
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"skipped: {tmp_path}/in/README and 1 more: not DICOM"


def test_says_what_is_wrong_with_each_file(tmp_path):
    write_series(tmp_path / "in")
    cut, intact, *_ = sorted((tmp_path / "in").iterdir())
    cut.write_bytes(cut.read_bytes()[:200])
    intact.rename(tmp_path / "in" / os.fsdecode(b"\xff.dcm"))
    with pytest.raises(UserError) as e, open_volume(tmp_path / "in"):
        pass
    first, *rows = e.value.what.splitlines()
    assert first == f"2 faults in {tmp_path / 'in'}:"
    assert f"{cut} is damaged" in rows[0] and "copy it again" in rows[2]
    assert "is not valid UTF-8" in rows[3] and "rename it" in rows[5]


def test_skips_reports_among_the_slices(tmp_path):
    write_series(tmp_path / "in")
    write_without_image(tmp_path / "in/DOSE", XRayRadiationDoseSRStorage)
    write_without_image(tmp_path / "in/DICOMDIR", MediaStorageDirectoryStorage)
    with open_volume(tmp_path / "in") as volume:
        assert volume.count == len(stored())


def test_refuses_a_disc_whose_slices_are_in_subfolders(tmp_path):
    write_without_image(tmp_path / "DICOMDIR", MediaStorageDirectoryStorage)
    write_series(tmp_path / "in")
    refused(tmp_path, "no CT slices among its files")


LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


OTHERS = [
    (LOCALIZER, "localizer"),
    ({"Modality": "MR", "SOPClassUID": MRImageStorage}, "modality MR, not CT"),
    ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "coronal or sagittal"),
]


@pytest.mark.parametrize("elements,reason", OTHERS)
def test_leaves_out_what_is_not_a_ct_slice(elements, reason, tmp_path, capsys):
    folder = tmp_path / "in"
    write_series(folder, array=stored()[:2])
    edit(folder.iterdir(), **elements)
    (first, _) = sorted(folder.iterdir())
    refused(first, f"{first} is not an axial CT slice: .*{reason}")
    refused(folder, f"no CT slices among its files:\n  {first} and 1 more: .*{reason}")

    for file in folder.iterdir():
        file.rename(folder / f"A{file.name}")
    uid = write_series(folder)
    with open_volume(folder) as volume:
        assert volume.count == len(stored())
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"skipped: {folder}/A") and reason in line
    with open_volume(folder, series=uid) as volume:
        assert volume.count == len(stored())
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "storage_class,reason",
    [
        (XRayRadiationDoseSRStorage, "report"),
        (RTStructureSetStorage, "structure set"),
        (SegmentationStorage, "segmentation"),
        (EncapsulatedPDFStorage, "document"),
        (GrayscaleSoftcopyPresentationStateStorage, "presentation state"),
        (RawDataStorage, "not an image"),
    ],
)
def test_says_what_a_file_without_an_image_is(storage_class, reason, tmp_path, capsys):
    write_without_image(tmp_path / "other", storage_class)
    refused(tmp_path / "other", f"not an axial CT slice: .*{reason}")
    write_series(tmp_path)
    with open_volume(tmp_path) as volume:
        assert volume.count == len(stored())
    out = capsys.readouterr().out
    assert out.startswith(f"skipped: {tmp_path}/other: ") and reason in out


def test_a_folder_of_patients_leaves_out_localizers(tmp_path, capsys):
    patients = tmp_path / "patients"
    for name in ("scan", "scout", "report"):
        (patients / name).mkdir(parents=True)
    write_series(patients / "scan")
    write_series(patients / "scout", array=stored()[:1])
    edit((patients / "scout").iterdir(), **LOCALIZER)
    write_without_image(patients / "report/SR", XRayRadiationDoseSRStorage)
    (task,) = plan_outputs(patients, tmp_path / "out")
    assert task.source == patients / "scan"
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["report (SR)", "localizer"]
