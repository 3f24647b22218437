"""`lungseg convert`: from volumes to a training."""

import nibabel as nib
import numpy as np

from lungseg_jax.data.phantom.volume import make_volume


def test_what_is_converted_can_be_trained_on(lungseg_here, tiny_recipe, tmp_path):
    for seed in range(3):
        image, mask, _ = make_volume(seed, slices=5, size=64)
        labels = mask // 255 * (seed > 0)
        for name, array in (("images", image), ("labels", labels)):
            (tmp_path / name).mkdir(exist_ok=True)
            file = tmp_path / name / f"p{seed}.nii.gz"
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.eye(4)), file)
    words = tmp_path / "images", tmp_path / "labels", tmp_path / "data"
    done = lungseg_here("convert", *words)
    assert done.returncode == 0, done.stderr
    assert "no lung in the slices of 1 case:\n  p0\nwrote 15 slices" in done.stdout
    again = lungseg_here("convert", *words)
    assert again.returncode == 2 and "already there" in again.stderr
    assert "--overwrite" not in again.stderr  # which this command does not have
    options = (
        f"--config.data.dir={tmp_path}/data",
        "--config.data.validation_fraction=0.3",
        "--config.data.test_fraction=0.3",
        "--config.train.batch_size=2",
        f"--workdir={tmp_path}/run",
    )
    done = lungseg_here("train", *tiny_recipe, *options)
    assert done.returncode == 0, done.stderr
    assert "5 slices to train, 5 to validate, 5 to test" in done.stdout


def test_refuses_values_that_are_not_numbers(lungseg_here, tmp_path):
    done = lungseg_here("convert", "--lung=left", "a.nii", "b.nii", tmp_path / "d")
    assert done.returncode == 2 and "--lung=left is not a list" in done.stderr
