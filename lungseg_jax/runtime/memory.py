"""The memory of this machine and its devices, and a plain error when it runs out."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jax

from lungseg_jax.runtime.errors import UserError

# What a container may use, in version 2 and version 1 of control groups.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# In the messages of XLA: bytes that were asked for and, on a TPU, those of the device or
# those that are free.
_SIZE = r"([\d.]+[KMGT]?)"
_MESSAGES = (
    rf"Out of memory (?:while trying to allocate|allocating) {_SIZE} bytes",
    rf"Used {_SIZE} of {_SIZE} hbm",
    rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)",
    rf"Attempting to (?:allocate|reserve) {_SIZE}\b.*?There are {_SIZE} free",
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def host_bytes() -> int:
    """Return the memory that this machine has, or that its container may use."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [file.read_text().strip() for file in CGROUP_LIMITS if file.is_file()]
    return min([physical, *(int(limit) for limit in limits if limit.isdecimal())])


def device_bytes(device: jax.Device) -> int:
    """Return the memory that arrays on a device of this process may fill.

    Devices that do not say so are CPUs, which share the memory of the host.
    """
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return limit or host_bytes() // jax.local_device_count()


@contextlib.contextmanager
def reported(remedy: str) -> Iterator[None]:
    """Turn the error of a device without enough memory in the block into one of ours.

    Args:
      remedy: what needs less memory.

    Raises:
      UserError: a device ran out of memory.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as e:  # the latter if called again
        if not is_exhausted(e):
            raise
        raise _out_of_memory(str(e), remedy) from e


def is_exhausted(error: Exception) -> bool:
    """Whether an error of XLA means that a device ran out of memory."""
    return "RESOURCE_EXHAUSTED" in str(error)


def shortage(error: Exception) -> str:
    """Return what was asked for and what there is, such as "29.49 GiB of 15.75 GiB".

    If XLA does not say both, this is the first line of its message.
    """
    asked, available = _amounts(str(error))
    if not available:
        return str(error).splitlines()[0]
    return f"{_format(asked)} of {_format(available)}"


def _out_of_memory(message: str, remedy: str) -> UserError:
    asked, available = _amounts(message)
    device = jax.local_devices()[0]
    available = available or device_bytes(device)
    rule = f"{device.device_kind} has {_format(available)}." if available else ""
    if asked and "free" in message:
        rule = f"{device.device_kind} has {_format(available)} left."
    what = f"{_format(asked)} were asked for." if asked else message.splitlines()[0]
    return UserError(f"out of memory: {what}", rule=rule, remedy=remedy)


def _amounts(message: str) -> tuple[float, float]:
    """Return the bytes that were asked for, and those there are; 0 for unknown."""
    for pattern in _MESSAGES:
        if match := re.search(pattern, message, re.S):
            asked, *available = map(_bytes, match.groups())
            return asked, *(available or [0])
    return 0, 0


def _bytes(text: str) -> float:
    number = text.rstrip("KMGT")
    return float(number) * _UNITS.get(text[len(number) :], 1)


def _format(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.2f} MiB"
