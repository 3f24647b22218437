"""The site of the documentation builds without a warning, and asks no other server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRA = 'the site needs the extra: pip install -e ".[docs]"'
for needed in ("material", "mkdocstrings"):
    pytest.importorskip(needed, reason=EXTRA)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with --strict: a warning is an error.

    With --quiet, mkdocs would overlook warnings.
    """
    folder = tmp_path_factory.mktemp("site")
    words = ["mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_on_the_site(site):
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    for page in [*pages, Path("CONTRIBUTING.md"), Path("SECURITY.md")]:
        assert (site / page).with_suffix(".html").is_file(), page


def test_links_out_of_the_folder_of_pages_lead_to_pages(site):
    assert 'href="SECURITY.html"' in (site / "reliability.html").read_text()
    assert 'href="benchmarks/index.html#' in (site / "robustness.html").read_text()
    assert 'href="../uncertainty.html#' in (site / "benchmarks/index.html").read_text()


def test_the_notebook_is_a_page_that_can_be_downloaded(site):
    page = site / "tutorials" / "masks_in_python.html"
    text = page.read_text()
    assert "make_phantom" in text and f'href="{page.stem}.ipynb"' in text
    assert page.with_suffix(".ipynb").is_file()
    assert 'href="tutorials/masks_in_python.html"' in (site / "index.html").read_text()


def test_docstrings_are_on_the_page_of_the_python_api(site):
    text = (site / "reference" / "python.html").read_text()
    for name in ("load", "LungSegmenter", "Segmentation", "run_experiment"):
        assert f'id="lungseg_jax.{name}"' in text
    assert "expected_iou" in text and "Raises" in text


def test_the_site_asks_no_other_server(site):
    loaded = re.compile(
        r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(?:https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page
        assert 'class="mermaid"' not in page.read_text(), "its script is on a server"
    for style in site.rglob("*.css"):
        assert not re.search(
            r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()
        )
