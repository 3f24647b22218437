"""What is installed without a checkout: the wheel, built from the source distribution."""

import os
import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from pathlib import Path

import pytest

from lungseg_jax.data.phantom.dataset import write_phantoms

ROOT = Path(__file__).parents[1]
TINY = (
    "--config=smoke --config.model.filters=2 --config.model.levels=2 --workdir=run "
    "--config.train.total_steps=12 --config.data.image_size=32 "
    "--config.data.phantom_slices=12"
).split()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both, built by an isolated build as for an upload."""
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """`installed(*words)` runs the command of the wheel, in a folder of its own."""
    (wheel,) = built.glob("*.whl")
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    words = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", *words], check=True)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "lungseg_jax", *map(str, words)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )

    run.folder, run.site = folder, site
    return run


def test_the_source_distribution_has_every_file_of_the_repository(built):
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    files = {name for name in tracked.stdout.split() if not name.startswith(".")}
    assert files <= packed


@pytest.mark.slow
def test_the_source_distribution_can_be_tested(built, tmp_path):
    """All of its tests can be collected, and those that are quick pass."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    quick = ["tests/metrics/test_overlap.py", "tests/test_layers.py"]
    for words in (["--collect-only"], quick):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_everything_that_is_not_python(installed):
    package = installed.site / "lungseg_jax"
    for path in (ROOT / "lungseg_jax").rglob("*"):
        relative = path.relative_to(ROOT / "lungseg_jax")
        if path.is_file() and "__pycache__" not in relative.parts:
            assert (package / relative).is_file(), relative
    recipes = {file.name for file in (ROOT / "configs").glob("*.py")}
    assert {file.name for file in (package / "configs").glob("*.py")} == recipes


def test_the_wheel_trains_and_predicts_in_an_empty_folder(installed):
    done = installed("train", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (installed.folder / "run/report/index.html").exists()
    write_phantoms(installed.folder / "data", slices=1, seed=3, size=64)
    words = "data/2d_images", "masks", "--quiet"
    for run in ([], ["--run=run"]):
        done = installed("predict", *words, *run, "--overwrite")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert len(list((installed.folder / "masks").glob("[!.]*"))) == 1


def test_the_page_of_a_package_index_links_to_nothing_in_the_repository(installed):
    (metadata,) = installed.site.glob("lungseg_jax-*.dist-info/METADATA")
    page = message_from_bytes(metadata.read_bytes()).get_payload()
    assert "U-Nets that segment the lungs" in page and "docs/index" not in page
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links and all(link.startswith("https://") for link in links)


def test_recipes_are_found_by_name(installed):
    done = installed("train", "--list")
    assert done.returncode == 0 and "incp_snapshot" in done.stdout, done.stderr
    done = installed("train", "--config=incp_snapshot:full", "--print_config")
    assert "image_size: 512" in done.stdout, done.stderr
    done = installed("train", "--config=incp_snapsho")
    assert done.returncode == 2 and "fix:   --config=incp_snapshot." in done.stderr
