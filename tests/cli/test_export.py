"""`lungseg export`: a bundle predicts as its run does, and damage to it is noticed."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from huggingface_hub import ModelCard


@pytest.fixture
def scan(labelled_folder, tmp_path):
    """Write the slices as a NIfTI volume with spacing."""
    files = sorted((labelled_folder / "2d_images").iterdir())
    stack = np.stack([cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in files])
    volume = sitk.GetImageFromArray(stack)
    volume.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(volume, str(tmp_path / "scan.nii.gz"))


def test_pushes_a_bundle_with_its_license(
    trained_run, lungseg_here, tmp_path, monkeypatch
):
    pushed = []
    monkeypatch.setattr(
        "lungseg_jax.inference.ensemble.hub.push_bundle",
        lambda folder, repo: pushed.append((folder, repo)) or "https://hub/org/lungs",
    )
    words = ["--license=cc-by-4.0", "--dataset=org/a", "--dataset=org/b", "lungs"]
    run = f"--run={trained_run}"
    done = lungseg_here("export", run, "--push=lungs", *words, cwd=tmp_path)
    assert done.returncode == 2 and "--push=lungs does not name" in done.stderr
    assert not (tmp_path / "lungs").exists()
    done = lungseg_here("export", run, "--push=org/lungs", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("pushed to https://hub/org/lungs\n")
    assert pushed == [(Path("lungs"), "org/lungs")]
    data = ModelCard.load(tmp_path / "lungs/README.md").data
    assert data.license == "cc-by-4.0" and data.datasets == ["org/a", "org/b"]
    assert data.eval_results[0].dataset_name == "phantom slices, test split"


def test_a_push_that_was_stopped_is_repeated_by_the_same_command(
    trained_run, lungseg_here, tmp_path, monkeypatch
):
    def push(folder, repo):
        pushed.append(folder)
        if stop:
            raise KeyboardInterrupt
        return "https://hub/org/lungs"

    monkeypatch.setattr("lungseg_jax.inference.ensemble.hub.push_bundle", push)
    words = f"--run={trained_run}", "--push=org/lungs", "lungs"
    pushed, stop = [], True
    done = lungseg_here("export", *words, cwd=tmp_path)
    assert done.returncode == 130 and "already written is complete" in done.stderr
    stop = False
    done = lungseg_here("export", *words, cwd=tmp_path)
    assert done.returncode == 0 and "pushed to https://hub" in done.stdout, done.stderr

    pushed.clear()
    done = lungseg_here("export", "--license=cc-by-4.0", *words, cwd=tmp_path)
    assert done.returncode == 2 and "is not what this command" in done.stderr
    (tmp_path / "lungs/README.md").write_text("Lungs.")
    done = lungseg_here("export", *words, cwd=tmp_path)
    assert done.returncode == 2 and "lungs/README.md is damaged" in done.stderr
    assert not pushed


def test_a_bundle_predicts_a_volume_as_its_run_does(
    trained_run, lungseg_here, scan, tmp_path
):
    def in_folder(*words):
        return lungseg_here(*words, cwd=tmp_path)

    done = in_folder("export", f"--run={trained_run}", "bundle")
    assert done.returncode == 0 and "2 networks" in done.stdout, done.stderr
    assert in_folder("verify", "--run=bundle").returncode == 0
    masks = []
    for source in (trained_run, "bundle"):
        words = [f"--run={source}", "--overwrite", "--csv=lungs.csv", "--overlay"]
        done = in_folder("predict", *words, "scan.nii.gz", "lungs.mha")
        assert done.returncode == 0, done.stderr
        mask = sitk.ReadImage(str(tmp_path / "lungs.mha"))
        assert mask.GetSpacing() == pytest.approx((0.7, 0.8, 2.5))
        masks.append(sitk.GetArrayFromImage(mask))
    np.testing.assert_array_equal(*masks)
    assert len((tmp_path / "lungs.csv").read_text().splitlines()) == 1 + 3 + 1
    assert (tmp_path / "lungs_overlay.png").exists()
    assert "<h1>scan.nii.gz</h1>" in (tmp_path / "lungs_overlay.html").read_text()
    for words, error in (
        ([f"--run={trained_run}", "bundle"], "exists already"),
        (["--run=bundle", "new"], "bundle is a bundle"),
        ([f"--run={trained_run}", "--members=every", "new"], "no snapshot every"),
    ):
        done = in_folder("export", *words)
        assert done.returncode == 2 and error in done.stderr

    weights = tmp_path / "bundle/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for words in (
        ["verify", "--run=bundle"],
        ["predict", "--run=bundle", "scan.nii.gz", "other.mha"],
    ):
        done = in_folder(*words)
        assert done.returncode == 2 and "model.safetensors" in done.stderr
    assert not (tmp_path / "other.mha").exists()


def test_exports_several_runs_as_one_ensemble(trained_run, lungseg_here, tmp_path):
    shutil.copytree(trained_run, tmp_path / "copy")
    runs = [f"--run={trained_run}", "--run=copy"]
    done = lungseg_here("export", *runs, "--members=last", "both", cwd=tmp_path)
    assert done.returncode == 0 and "2 networks" in done.stdout, done.stderr
    card = (tmp_path / "both/README.md").read_text()
    assert "An ensemble of 2 U-Nets" in card and "split seed 3" in card


@pytest.mark.parametrize(
    "words,error",
    [
        (["--run=RUN", "--run=RUN"], "the same name"),
        (["--run=RUN", "--data=DIR"], "--data has no effect with one --run"),
    ],
)
def test_refuses_runs_that_are_no_ensemble(
    trained_run, lungseg_here, tmp_path, words, error
):
    words = [word.replace("RUN", str(trained_run)) for word in words]
    done = lungseg_here("export", *words, "both", cwd=tmp_path)
    assert done.returncode == 2 and error in done.stderr
    assert not (tmp_path / "both").exists()


def test_a_bundle_is_not_put_among_the_checkpoints(trained_run, lungseg_here):
    out = trained_run / "checkpoints/bundle"
    done = lungseg_here("export", f"--run={trained_run}", out)
    assert done.returncode == 2 and "not outside of" in done.stderr
    assert not out.exists()
