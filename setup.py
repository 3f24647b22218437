"""The packages, and the page of a package index; everything else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup


def index_page() -> str:
    """Return README.md without its links and pictures in the repository."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    link = r"\[([^]]*)\]\((?!https:)[^)]*\)"
    text = re.sub(f"!{link}\n*", "", text)
    return re.sub(link, r"\1", text)


setup(
    # The recipes travel in the wheel; in a checkout they stay in configs/.
    packages=[
        *find_packages(include=["lungseg_jax", "lungseg_jax.*"]),
        "lungseg_jax.configs",
    ],
    package_dir={"lungseg_jax.configs": "configs"},
    long_description=index_page(),
    long_description_content_type="text/markdown",
)
