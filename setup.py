"""The packages; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The recipes travel in the wheel; in a checkout they stay in configs/.
    packages=[
        *find_packages(include=["lungseg_jax", "lungseg_jax.*"]),
        "lungseg_jax.configs",
    ],
    package_dir={"lungseg_jax.configs": "configs"},
)
