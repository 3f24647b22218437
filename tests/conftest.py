"""What all tests share: compiled programs, small data folders, the real data."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# The same examples on every machine, and no deadline on a busy one.
hypothesis.settings.register_profile("ours", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ours")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error:::lungseg_jax")
    # Set before jax is imported, so that a second run of the tests compiles nothing.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("xla")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The 240 slices of the notebooks' training split; they are not ours to ship."""
    default = ROOT.parent / "shared" / "data" / "lung_ct"
    folder = Path(os.environ.get("LUNGSEG_TEST_DATA", default))
    if not (folder / "2d_images").is_dir():
        pytest.skip(f"no real data in {folder}: set LUNGSEG_TEST_DATA to test on them")
    return folder


@pytest.fixture
def pair_folder(tmp_path):
    """`make(names, size=40, dtype="int16", suffix=".tif", folder="data")` -> Path.

    Writes a pair for each name: soft tissue near 0 HU, noise of its own, and a lung, a
    disc of -700 HU. `dtype="uint8"` writes 8-bit pictures. The mask is {0, 255}.
    """
    from lungseg_jax.data.writers import write_image

    def make(names, *, size=40, dtype="int16", suffix=".tif", folder="data"):
        root = tmp_path / folder
        rows, columns = np.mgrid[:size, :size]
        lung = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 4) ** 2
        for i, name in enumerate(names):
            noise = np.random.default_rng(i).integers(0, 40, (size, size))
            image = np.where(lung, -700, 0) + noise
            if dtype == "uint8":
                image = np.where(lung, 20, 150) + noise
            for kind, array in (
                ("2d_images", image.astype(dtype)),
                ("2d_masks", lung.astype(np.uint8) * np.uint8(255)),
            ):
                (root / kind).mkdir(parents=True, exist_ok=True)
                write_image(root / kind / f"{name}{suffix}", array)
        return root

    return make
