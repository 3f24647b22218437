"""docs/how-to/extend.md works: its five samples train, predict and report together."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import lungseg_jax as ls
from lungseg_jax.cli import train_flags
from lungseg_jax.data.augmentation import transforms
from lungseg_jax.data.io import formats
from lungseg_jax.data.io.formats import write_slice
from lungseg_jax.metrics import registry
from lungseg_jax.models import MODELS
from lungseg_jax.training import losses
from lungseg_jax.training.recipes import without_variety

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "extend.md"
ADDED = {
    "block": "residual",
    "loss": "tversky",
    "augmentation": "rings",
    "format": ".pgm",
    "metric": "specificity",
}


@pytest.fixture
def extended(monkeypatch):
    """Run the samples, after a use of the tables; return the files of each section."""
    ls.default_config()
    tables = {
        "block": MODELS,
        "loss": losses.LOSSES,
        "augmentation": transforms.TRANSFORMS,
        "format": formats.FORMATS,
        "metric": registry.METRICS,
    }
    for kind, table in tables.items():
        monkeypatch.delitem(table, ADDED[kind], raising=False)  # restores it afterwards
    files = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, namespace = section.splitlines()[0], {"__name__": "sample"}
        for sample in re.findall(r"```python\n(.*?)```", section, re.S):
            exec(compile(sample, title, "exec"), namespace)
            files.setdefault(title, set()).add(re.match(r"# (\S+\.py)", sample)[1])
    assert all(ADDED[kind] in table for kind, table in tables.items())
    yield files
    for kind, table in tables.items():
        table.pop(ADDED[kind], None)


def config_of_the_page():
    """The configuration of the command that trains the block."""
    (command,) = re.findall(r"`lungseg train (--config.*?)` trains", PAGE.read_text())
    return train_flags.read_config(shlex.split(command))


def test_each_extension_touches_at_most_two_files(extended):
    assert len(extended) == 5
    assert all(len(files) <= 2 for files in extended.values()), extended


def test_all_five_work_together(extended, tmp_path, slices):
    for image_slice in slices(10, shape=(48, 48)):
        gray = np.clip((image_slice.image + 1000) // 5, 0, 255).astype(np.uint8)
        for kind, array in (
            ("2d_images", gray),
            ("2d_masks", image_slice.mask * np.uint8(255)),
        ):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            write_slice(tmp_path / "data" / kind / f"{image_slice.name}.pgm", array)
    c = without_variety(config_of_the_page())
    c.update_from_flattened_dict(
        {
            "cache_dir": str(tmp_path / "cache"),
            "data.dir": str(tmp_path / "data"),
            "data.window_hu": (0.0, 255.0),
            "data.image_size": 32,
            "data.extra_phantoms": 0,
            "model.filters": 1,
            "model.levels": 2,
            "train.loss": "tversky",
            "augment.rings": 0.5,
            "train.total_steps": 2,
            "train.batch_size": 2,
            "schedule.cycles": 1,
        }
    )
    assert c.model.name == "residual"
    run = tmp_path / "run"
    evaluation = ls.run_experiment(c, str(run))
    assert "specificity_mean" in evaluation["ensemble"]
    assert all("specificity" in row for row in evaluation["slices"].values())
    assert "specificity" in (run / "report" / "index.html").read_text()
    segmentation = ls.load(run)(gray)
    assert segmentation.mask.shape == gray.shape
