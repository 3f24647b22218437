"""What a training refuses of its data, before it writes or compiles anything."""

import numpy as np
import pytest

from lungseg_jax import experiment
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.splits import split_names
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import loop
from lungseg_jax.training.config import default_config
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

NAMES = [f"s{i}" for i in range(10)]


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """`refused(folder)` -> the error of a training on it; nothing may be trained."""
    monkeypatch.setattr(
        experiment.compilation, "enable_compilation_cache", lambda root: None
    )
    monkeypatch.setattr(loop, "train", lambda *args: pytest.fail("it was trained"))

    def refused(folder):
        c = default_config()
        c.data.dir, c.cache_dir = str(folder), str(tmp_path / "cache")
        with pytest.raises(UserError) as e:
            experiment.run_experiment(c, str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()
        return e.value

    return refused


def test_equal_pictures_in_two_splits(pair_folder, refused):
    folder = pair_folder(NAMES)
    split = split_names(NAMES, validation_fraction=0.1, test_fraction=0.1, seed=3)
    (test,), (validation,), one = split["test"], split["validation"], split["train"][0]
    picture = (folder / "2d_images" / f"{test}.tif").read_bytes()
    for name in (validation, one):
        (folder / "2d_images" / f"{name}.tif").write_bytes(picture)
    fault = refused(folder)
    for name, part in ((test, "test"), (validation, "validation"), (one, "train")):
        assert f"{name} ({part})" in fault.what
    assert "all but one" in fault.remedy


def test_no_lung_to_train_on(pair_folder, refused):
    folder = pair_folder(NAMES)
    for name in NAMES:
        path = folder / "2d_masks" / f"{name}.tif"
        write_image(path, np.zeros((40, 40), np.uint8))
    assert "masks of 8 training slices are all empty" in refused(folder).what


def test_training_images_are_recognized_by_content_under_any_name(tmp_path):
    record = {
        "split": {"train": ["a", "b"]},
        "sha256": {"2d_images/a.tif": "1", "2d_masks/a.tif": "2"}
        | {"2d_images/b.tif": "3", "2d_images/c.tif": "4"},
    }
    digests = {"2d_images/x.tif": "1", "2d_images/y.tif": "4", "2d_masks/z.tif": "3"}
    run = Run(RunFolder(tmp_path), default_config(), record, [], {})
    assert run.count_training_images(digests) == 1
