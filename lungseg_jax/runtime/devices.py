"""The devices of the machine, and whether JAX uses them."""

import os
import shutil
from pathlib import Path

import jax

from lungseg_jax.runtime import progress

DRIVER = Path("/proc/driver/nvidia/version")


def has_nvidia_driver() -> bool:
    """Return whether the machine has an NVIDIA driver."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def idle_gpu() -> str:
    """Return what is wrong if there is an NVIDIA GPU and JAX runs on the CPU, or "".

    A user who has asked for the CPU, in JAX_PLATFORMS, is not told so.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked or jax.default_backend() != "cpu" or not has_nvidia_driver():
        return ""
    return (
        "there is an NVIDIA driver, but JAX runs on the CPU: install the extra [gpu] "
        "(CUDA 13) or [cuda12], or set JAX_PLATFORMS=cpu"
    )


def warn_of_idle_gpu() -> None:
    """Say loudly that a GPU is not used."""
    if fault := idle_gpu():
        progress.say(f"WARNING: {fault}")
