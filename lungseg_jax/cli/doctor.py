"""Describe this installation and this machine, and say what to change.

    lungseg doctor

Prints the versions, the devices that JAX uses, memory, the cache folder, and whether the
weights of the package are intact. Exit status 0: nothing to change; 2: something is.
"""

import os
import platform
import shutil
import stat
from pathlib import Path

from lungseg_jax.cli import app
from lungseg_jax.runtime import cache, progress
from lungseg_jax.runtime.errors import UserError, combine_errors
from lungseg_jax.runtime.versions import version_of

PACKAGES = ("lungseg_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
LEAST_FREE_GB = 1.0  # of the cache: prepared data and compiled programs
LEAST_MEMORY_GB = 2.0


@app.command(__doc__, no_args_is_help=False)
def doctor() -> None:
    faults: list[UserError] = []
    rows = [("python", platform.python_version()), ("system", platform.platform())]
    rows += [(name, version_of(name)) for name in PACKAGES]
    rows += _devices(faults) + _memory(faults) + _cache(faults) + _weights(faults)
    for name, text in rows:
        progress.say(f"{name:18}{text}")  # also if the reader has left: faults follow
    if faults:
        raise combine_errors(faults, "this installation")
    print("nothing to change")


def _devices(faults: list[UserError]) -> list[tuple[str, str]]:
    from lungseg_jax.runtime import devices

    try:
        kinds = ", ".join(device.device_kind for device in devices.local())
        if fault := devices.idle_gpu():
            faults.append(UserError(f"{fault}."))
    except UserError as e:
        faults.append(e)
        kinds = "none that JAX can use"
    return [("devices", kinds), ("CPU cores", str(os.cpu_count()))]


def _memory(faults: list[UserError]) -> list[tuple[str, str]]:
    from lungseg_jax.runtime import memory

    size = memory.host_bytes() / 1e9
    if size < LEAST_MEMORY_GB:
        faults.append(
            UserError(
                f"this machine, or its container, has {size:.1f} GB of memory.",
                rule=f"at least {LEAST_MEMORY_GB:g} GB.",
            )
        )
    return [("memory", f"{size:.1f} GB")]


def _cache(faults: list[UserError]) -> list[tuple[str, str]]:
    try:
        root = cache.cache_root()
    except UserError as e:
        faults.append(e)
        return []
    free = shutil.disk_usage(root).free / 1e9
    if not os.access(root, os.W_OK):
        faults.append(
            UserError(
                f"the cache folder {root} is not writable.",
                remedy="change its permissions, or set XDG_CACHE_HOME to another folder.",
            )
        )
    if free < LEAST_FREE_GB:
        faults.append(
            UserError(
                f"{free:.1f} GB are free on the disk of {root}.",
                rule=f"at least {LEAST_FREE_GB:g} GB.",
                remedy="free some, or set XDG_CACHE_HOME to a folder on another disk.",
            )
        )
    used = sum(map(_size, root.rglob("*"))) / 1e9
    return [("cache", f"{root}, {used:.2f} GB used, {free:.0f} GB free")]


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for others, and if another command deletes it."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _weights(faults: list[UserError]) -> list[tuple[str, str]]:
    from lungseg_jax.inference.ensemble.bundle import verify_bundle
    from lungseg_jax.inference.ensemble.location import PRETRAINED, locate

    try:
        verify_bundle(locate(PRETRAINED))
    except UserError as e:
        faults.append(e)
        return [("weights", "damaged")]
    return [("weights", "those of the package are intact")]
