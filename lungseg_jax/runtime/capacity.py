"""The memory of this machine and of its devices."""

import os
from pathlib import Path

import jax

# What a container may use, in version 2 and version 1 of control groups.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


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
