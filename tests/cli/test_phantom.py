"""`lungseg phantom`: a volume and its mask, with a geometry that others can read."""

import nibabel as nib
import numpy as np
import pytest
from in_process import run_command

from lungseg_jax.data.io.formats import format_of
from lungseg_jax.data.phantom.volume import make_volume


@pytest.fixture
def phantom(monkeypatch):
    """`phantom(*words)` calls the command and returns its status and error output."""

    def run(*words):
        done = run_command("phantom", [*map(str, words)], monkeypatch)
        return done.returncode, done.stderr

    return run


SMALL = ("--slices=12", "--size=64", "--seed=2")


def test_writes_a_volume_and_its_mask(tmp_path, phantom):
    out = tmp_path / "patient.nii.gz"
    assert phantom(*SMALL, out)[0] == 0
    image, mask = nib.load(out), nib.load(tmp_path / "patient_mask.nii.gz")
    expected, lungs, (between, row, column) = make_volume(2, slices=12, size=64)
    np.testing.assert_allclose(image.header.get_zooms(), (column, row, between), 1e-6)
    np.testing.assert_array_equal(image.affine, mask.affine)
    # Columns run to the left, rows to the back, slices to the head.
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, expected)
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, lungs > 0)
    assert image.get_data_dtype() == np.int16 and mask.get_data_dtype() == np.uint8


def test_reads_back_in_the_standard_orientation(tmp_path, phantom):
    out = tmp_path / "patient.nrrd"
    status, _ = phantom(*SMALL, f"--mask={tmp_path / 'lungs.nii.gz'}", out)
    assert status == 0
    expected, lungs, spacing = make_volume(2, slices=12, size=64)
    for path, slices in ((out, expected), (tmp_path / "lungs.nii.gz", lungs > 0)):
        with format_of(path).open_volume(path) as volume:
            np.testing.assert_allclose(volume.spacing_mm, spacing, 1e-6)
            np.testing.assert_array_equal(volume.read(5), slices[5])


def test_a_mask_may_be_a_segmentation(tmp_path, monkeypatch):
    mask = tmp_path / "lungs.seg.nrrd"
    words = ["--slices=1", "--size=64", f"--mask={mask}", f"{tmp_path}/a.nrrd"]
    done = run_command("phantom", words, monkeypatch)
    assert done.returncode == 0 and ": 1 slice, 64 px" in done.stdout
    assert b"Segment0_Name:=Lung" in mask.read_bytes()


def test_creates_missing_folders(tmp_path, phantom):
    words = (
        *SMALL,
        f"--mask={tmp_path}/masks/p.nii",
        tmp_path / "new" / "scans" / "p.nii",
    )
    assert phantom(*words) == (0, "")
    assert (tmp_path / "masks/p.nii").exists()
    assert (tmp_path / "new/scans/p.nii").exists()


@pytest.mark.parametrize(
    "words,message",
    [
        (["."], "does not have the suffix of a volume"),
        (["patient"], "fix:   name it patient.nii.gz."),
        (["patient.png"], "patient.png does not have the suffix of a volume"),
        (["--mask=m.png", "patient.nii"], "fix:   name it m.nii.gz."),
        (["there.nii.gz"], "already there"),
        (["--mask=a.nii.gz", "a.nii.gz"], "one name"),
        (["--spacing=90", "a.nii.gz"], "within the body"),
        (["--spacing=inf", "a.nii.gz"], "rule:  at least 0.01 mm"),
        (["--spacing=nan", "a.nii.gz"], "rule:  at least 0.01 mm"),
        (["--spacing=1e-9", "a.nii.gz"], "rule:  at least 0.01 mm"),
        (["patient.seg.nrrd"], "patient.seg.nrrd would be a segmentation"),
        (["--seed=3"], "OUT is missing"),
    ],
)
def test_a_mistake_is_one_plain_error(words, message, tmp_path, phantom, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.nii.gz").touch()
    status, stderr = phantom(*words)
    assert status == 2 and stderr.startswith("error: ") and message in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.nii.gz"]
