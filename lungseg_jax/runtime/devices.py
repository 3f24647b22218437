"""The devices of the machine, and whether JAX uses them."""

import os
import shutil
from pathlib import Path

import jax
from jax.extend.backend import clear_backends

from lungseg_jax.runtime import progress
from lungseg_jax.runtime.device_names import DeviceName
from lungseg_jax.runtime.errors import UserError

BACKENDS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}  # of JAX, by our names
DRIVER = Path("/proc/driver/nvidia/version")


def choose(name: DeviceName | None) -> None:
    """Let JAX see only a device; must precede any use of one. None changes nothing."""
    if name is None:
        return
    jax.config.update("jax_platforms", BACKENDS[name.platform])
    if name.index is None:
        return
    jax.config.update("jax_cuda_visible_devices", str(name.index))
    one = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    os.environ.update(one | {"TPU_VISIBLE_CHIPS": str(name.index)})


def local() -> list[jax.Device]:
    """Return the devices of this process.

    Raises:
      UserError: JAX cannot use those that JAX_PLATFORMS names.
    """
    try:
        return jax.local_devices()
    except (AssertionError, RuntimeError) as e:  # the former if no plugin is installed
        asked = jax.config.jax_platforms
        reason = str(e).partition(" (set JAX_PLATFORMS")[0]  # our remedy says it, too
        reason = reason or "no such device was found."
        raise UserError(
            f"JAX cannot use JAX_PLATFORMS={asked}: {reason}"
            if asked
            else f"JAX cannot use the devices of this machine: {reason}",
            rule="a platform that JAX has here: cpu, or cuda or tpu with the extra [gpu], "
            "[cuda12] or [tpu].",
            remedy="unset JAX_PLATFORMS, or set JAX_PLATFORMS=cpu.",
        ) from e


def require(name: DeviceName | None) -> None:
    """Check that a device that was chosen is there; None: that JAX has any.

    Raises:
      UserError: it is not, or JAX cannot use it.
    """
    if name is None:
        local()
        return
    is_beyond = name.platform == "cpu" and bool(name.index)  # the CPU is one device
    try:
        if jax.default_backend() == name.platform and not is_beyond:
            return
    except RuntimeError:  # JAX lacks the platform, or finds no such device
        pass
    clear_backends()
    jax.config.update("jax_cuda_visible_devices", "all")
    os.environ.pop("TPU_VISIBLE_CHIPS", None)
    jax.config.update("jax_platforms", "")
    known = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
    raise UserError(
        f"the device {name} was not found.",
        rule=f"JAX finds {known}.",
        remedy="install the extra [gpu], [cuda12] or [tpu] if there is another one; "
        "lungseg doctor says more.",
    )


def has_nvidia_driver() -> bool:
    """Return whether the machine has an NVIDIA driver."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def idle_gpu() -> str:
    """Return what is wrong if there is an NVIDIA GPU and JAX runs on the CPU, or "".

    A user who has asked for the CPU, in JAX_PLATFORMS or by `choose`, is not told so.
    """
    asked = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms
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
