"""`lungseg predict`: masks of slices and folders, all inputs checked first."""

import shutil

import cv2
import nibabel as nib
import numpy as np

from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom.volume import make_volume


def test_checks_all_inputs_before_it_writes(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    inputs = tmp_path / "in"
    shutil.copytree(labelled_folder / "2d_images", inputs)
    last = sorted(inputs.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:500])
    done = lungseg_here("predict", f"--run={trained_run}", inputs, tmp_path / "out")
    assert done.returncode == 2 and last.name in done.stderr
    assert not (tmp_path / "out").exists()


def test_writes_a_mask_for_an_image_and_for_a_folder(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    images = labelled_folder / "2d_images"
    first = sorted(images.iterdir())[0]
    done = lungseg_here("predict", f"--run={trained_run}", first, tmp_path / "m.png")
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128) and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}

    done = lungseg_here("predict", f"--run={trained_run}", images, tmp_path / "all")
    assert done.returncode == 0, done.stderr
    assert "wrote 3 masks" in done.stdout
    assert {p.name for p in (tmp_path / "all").iterdir()} == {
        p.name for p in images.iterdir()
    }
    same = cv2.imread(str(tmp_path / "all" / first.name), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(same, mask)

    before = (tmp_path / "m.png").stat().st_mtime_ns
    done = lungseg_here("predict", f"--run={trained_run}", first, tmp_path / "m.png")
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (tmp_path / "m.png").stat().st_mtime_ns == before


def test_uses_the_weights_of_the_package_and_says_so(
    labelled_folder, lungseg_here, tmp_path
):
    first = sorted((labelled_folder / "2d_images").iterdir())[0]
    done = lungseg_here("predict", first, tmp_path / "m.png")
    assert done.returncode == 0, done.stderr
    assert "weights: those of the package, trained on synthetic slices" in done.stdout
    assert cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED).any()


def test_segments_a_folder_of_patients_and_resumes(trained_run, lungseg_here, tmp_path):
    for name, seed in (("anna", 1), ("bert", 2)):
        image = make_volume(seed, slices=3, size=64)[0]
        (tmp_path / "in" / name).mkdir(parents=True)
        file = tmp_path / "in" / name / "ct.nii"
        nib.save(nib.Nifti1Image(image.transpose(2, 1, 0), np.eye(4)), file)
    (tmp_path / "in" / "carl.nii").write_bytes(b"no scan")
    words = (f"--run={trained_run}", "--overlay", "--csv=t.csv", tmp_path / "in", "out")
    done = lungseg_here("predict", *words, cwd=tmp_path)
    assert done.returncode == 2 and "carl.nii" in done.stderr
    assert "wrote 2 masks to out" in done.stdout
    index = (tmp_path / "out" / "index.html").read_text()
    assert "anna/ct_overlay.html" in index and "1 skipped" in index

    table = (tmp_path / "t.csv").read_text()
    (tmp_path / "out" / "anna" / "ct.nii").unlink()
    (tmp_path / "in" / "carl.nii").unlink()
    done = lungseg_here("predict", "--resume", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 mask already there, 1 to do" in done.stdout
    assert sorted((tmp_path / "t.csv").read_text().split()) == sorted(table.split())
    assert "skipped" not in (tmp_path / "out" / "index.html").read_text()


def test_refuses_photographs_for_a_network_of_hounsfield_units(
    trained_run, lungseg_here, tmp_path
):
    write_image(tmp_path / "photo.png", np.mgrid[:64, :64][0].astype(np.uint8))
    words = [f"--run={trained_run}", tmp_path / "photo.png", tmp_path / "m.png"]
    done = lungseg_here("predict", *words)
    assert done.returncode == 2
    assert "photo.png has gray values from 0 to 255" in done.stderr
    assert "trained on Hounsfield units" in done.stderr
    assert not (tmp_path / "m.png").exists()
