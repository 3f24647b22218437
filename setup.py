"""Installation of lungseg_jax."""

from setuptools import find_packages, setup

setup(
    name="lungseg_jax",
    version="0.1.0",
    packages=find_packages(include=["lungseg_jax*"]),
)
