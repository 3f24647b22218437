"""Shared by all tests: compiled programs, small data folders, a tiny run, the real data."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ["bucket_servers"]

# A version that lacks a flag ends the process that is given it.
JAXLIB = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))

# The same examples on every machine, and no deadline, for busy ones.
hypothesis.settings.register_profile("ours", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ours")


# Minutes each, and all tests of a file run in one process: they start first, or one could
# be left for the end.
LONG = (
    "loop",  # compiles what the next files of tests/training use again
    "keras_parity",
    "run_record",
    "experiment",
    "kill",
    "commands",
    "signals",
    "train",
    "checkpoints",
    "unet",
    "steps",
    "log",
    "device_mesh",
    "feeds",
    "programs",
    "remote_checkpoints",
    "wheel",
    "fuzz",
)


def pytest_collection_modifyitems(items):
    long = [f"test_{name}" for name in LONG]

    def rank(item):
        name = item.path.stem
        return long.index(name) if name in long else len(long)

    items.sort(key=rank)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error:::lungseg_jax")
    # Set before JAX is imported; the commands that tests start inherit it. All programs
    # of a test run are compiled once, and a second run compiles nothing.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("xla")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # Unoptimized, a training step compiles in a quarter of the time. `trained_run` of
    # tests/cli is compiled as for users, and `XLA_FLAGS= launch/test.sh` compiles all so.
    flags = "--xla_backend_optimization_level=0"
    if JAXLIB < (0, 11):
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", flags)


@pytest.fixture(autouse=True)
def same_platforms():
    """What a test chooses as the devices of JAX ends with it."""
    import jax  # after `pytest_configure`

    before = jax.config.jax_platforms
    yield
    if jax.config.jax_platforms != before:
        jax.config.update("jax_platforms", before)


@pytest.fixture
def other_settings():
    """`with other_settings():` the process has others of JAX, as by its environment."""
    import jax

    settings = {
        "jax_enable_x64": True,
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
    }

    @contextlib.contextmanager
    def other():
        before = {name: getattr(jax.config, name) for name in settings}
        try:
            for name, value in settings.items():
                jax.config.update(name, value)
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)

    return other


@pytest.fixture(scope="session")
def run_on_devices():
    """`run(count, program, *arguments)`: what a process with fake devices prints.

    The program is a file, or code.
    """

    def run(count, program, *arguments):
        words = [program] if isinstance(program, Path) else ["-c", program]
        fake = f"--xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            [sys.executable, *words, *map(str, arguments)],
            env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {fake}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def as_processes(monkeypatch):
    """`as_processes(n, work)`: what n processes of a job return, each of them a thread."""
    from jax.experimental import multihost_utils

    from lungseg_jax.runtime import sharing

    def run(n, work):
        place, sent, barrier = threading.local(), {}, threading.Barrier(n)

        def allgather(array):
            sent[place.index] = array
            barrier.wait()
            received = np.stack([sent[i] for i in range(n)])
            barrier.wait()  # before `sent` is used again
            return received

        def process(index):
            place.index = index
            try:
                return work()
            except BaseException:
                barrier.abort()  # the others would wait
                raise

        with monkeypatch.context() as m, ThreadPoolExecutor(n) as threads:
            m.setattr(sharing, "_rank_and_count", lambda: (place.index, n))
            m.setattr(multihost_utils, "process_allgather", allgather)
            return list(threads.map(process, range(n)))

    return run


@pytest.fixture
def patients_with(monkeypatch):
    """Give every phantom patient this finding beside the lungs, or none if it is ""."""
    from lungseg_jax.data.phantom import pleura

    def choose(finding):
        chances = {name: float(name == finding) for name in pleura.CHANCES}
        monkeypatch.setattr(pleura, "CHANCES", chances)

    return choose


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The 240 slices of the notebooks' training split, which we may not distribute."""
    default = ROOT.parent / "shared" / "data" / "lung_ct"
    folder = Path(os.environ.get("LUNGSEG_TEST_DATA", default))
    if not (folder / "2d_images").is_dir():
        pytest.skip(f"no real data in {folder}: set LUNGSEG_TEST_DATA to test on them")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of this test session share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "shared"


@pytest.fixture(scope="session")
def tiny_cache(shared_folder) -> Path:
    """The cache folder of all tiny runs."""
    return shared_folder / "tiny_cache"


@pytest.fixture(scope="session")
def finished_run(tiny_cache, shared_folder):
    """The folder of a finished run of `tiny_config`; tests must not write to it."""
    from tiny_run import tiny_config  # of tests/training/

    from lungseg_jax.experiment import run_experiment
    from lungseg_jax.runtime.locks import exclusive_lock
    from lungseg_jax.training.run_folder import RunFolder

    folder = RunFolder(shared_folder / "finished_run")
    with exclusive_lock(shared_folder / "finished_run.lock"):
        if not folder.page.exists():  # written last
            run_experiment(tiny_config(tiny_cache), str(folder.path))
    return folder


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the finished run, to be damaged."""
    from lungseg_jax.training.run_folder import RunFolder

    shutil.copytree(finished_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def plain_report(monkeypatch):
    """Write reports without figures, which take longer than a tiny training."""

    def write_report(folder, *args, **kwargs):
        folder.mkdir(exist_ok=True)
        (folder / "index.html").write_text("plain")

    monkeypatch.setattr("lungseg_jax.reporting.run_page.write_report", write_report)


@pytest.fixture
def pair_folder(tmp_path):
    """`make(names, size=40, dtype="int16", suffix=".tif", folder="data")` -> Path.

    Writes a pair for each name: soft tissue near 0 HU with different noise, and a lung, a
    disc of -700 HU. `dtype="uint8"` writes 8-bit images. The mask is {0, 255}.
    """
    from lungseg_jax.data.io.images import write_image

    def make(names, *, size=40, dtype="int16", suffix=".tif", folder="data"):
        root = tmp_path / folder
        rows, columns = np.mgrid[:size, :size]
        lung = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 4) ** 2
        for i, name in enumerate(names):
            noise = np.random.default_rng(i).integers(0, 40, (size, size))
            image = np.where(lung, -700, 0) + noise
            if dtype == "uint8":
                image = np.where(lung, 20, 150) + noise
            for subfolder, array in (
                ("2d_images", image.astype(dtype)),
                ("2d_masks", lung.astype(np.uint8) * np.uint8(255)),
            ):
                (root / subfolder).mkdir(parents=True, exist_ok=True)
                write_image(root / subfolder / f"{name}{suffix}", array)
        return root

    return make


@pytest.fixture(scope="session")
def trained():
    """Three untrained members with made-up tuning.

    Their window gives dark pixels a higher probability than bright ones: masks are
    neither empty nor full.
    """
    from lungseg_jax.data.preprocessing import Preprocessing
    from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
    from lungseg_jax.models import make_model
    from lungseg_jax.models.variables import init_variables

    model = {"name": "conv", "filters": 1, "levels": 2}
    names = ["10", "20", "30"]
    review = {
        "threshold": 0.6,
        "flagged": 0.1,
        "n_low": 1,
        "caught": 1,
        "rule": "made up",
    }
    return TrainedEnsemble(
        path=Path("nowhere"),
        model=model,
        preprocessing=Preprocessing("window", 32, (-1000.0, 400.0)),
        threshold=0.5,
        batch_size=2,
        domain="HU",
        members={
            name: init_variables(make_model(**model), channels=1, seed=seed)
            for seed, name in enumerate(names)
        },
        views={},
        tuning={
            "n": 5,
            "choices": {
                "all": {
                    "members": names,
                    "iou_pooled": 0.9,
                    "temperature": 1.5,
                    "review_below": 0.6,
                    "review": review,
                },
                "last": {
                    "members": ["30"],
                    "iou_pooled": 0.9,
                    "temperature": 2.0,
                    "review_below": 0.5,
                    "review": review,
                },
            },
            "postprocessing": {"chosen": "fill_holes"},
        },
    )


@pytest.fixture(scope="session")
def slices():
    """`make(n, seed=0, shape=(40, 36))`: slices in Hounsfield units, with one lung each."""
    from lungseg_jax.data.pairs import Slice

    def make(n, *, seed=0, shape=(40, 36)):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        for i in range(n):
            centre = rng.uniform(0.4, 0.6, 2) * shape
            lung = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(8, 14)
            image = np.where(lung, -700, 0) + rng.integers(-100, 100, shape)
            yield Slice(f"s{i:02}", image.astype(np.int16), lung.astype(np.uint8))

    return make
