"""Installation; CONTRIBUTING.md says what each dependency is for."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="lungseg_jax",
    version="0.2.0.dev0",
    description="U-Nets that find the lungs in CT slices, trained and ensembled in JAX.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lungseg_jax", "lungseg_jax.*"]),
    package_data={
        "lungseg_jax": ["py.typed"],
        "lungseg_jax.inference.ensemble": ["pretrained/*"],
        "lungseg_jax.reporting": ["*.html"],
        "lungseg_jax.data.lung_ct": ["README.md", "TAGS.txt", "CITATIONS.bib"],
    },
    entry_points={"console_scripts": ["lungseg=lungseg_jax.__main__:main"]},
    install_requires=[
        "SimpleITK>=2.4",
        "absl-py>=2.1",
        "array_record>=0.8",
        "click>=8.2",
        "connected-components-3d>=3.20",
        "fill-voids>=2.0",
        "flatbuffers>=24",  # jax.export
        "flax>=0.12",
        "importlib_resources",  # etils, which tensorflow-datasets uses, forgets it
        "jax>=0.10",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "nibabel>=5.2",
        "numpy>=2.0",
        "opencv-python-headless>=4.13",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "bench": ["keras>=3.10", "torch"],  # tensorflow, if wanted, under Keras
        "gpu": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "test": [
            "hypothesis",
            "keras>=3.10",
            "pydicom>=3",
            "pytest>=8",
            "pytest-xdist",
            "ruff",
        ],
    },
)
