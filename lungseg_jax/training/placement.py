"""Where the training slices are kept during a training.

No placement changes what a step computes: the order of the slices is the same.
"""

import dataclasses

from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.runtime import devices, job, memory

AUTO = "auto"
PLACEMENTS = {
    "copied": "all on every device",
    "sharded": "divided among the devices",
    "streamed": "read from disk, batch by batch",
}
# Of a device's memory, the largest share that slices fill. The step needs the rest: 10 of
# the 16 GB of a TPU v5e, for 16 slices of 512x512.
LARGEST_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Placement:
    """A choice among PLACEMENTS, as run.json records it.

    Attributes:
      name: key of PLACEMENTS.
      reason: why it was chosen, for humans.
      slice_bytes: memory of a slice on a device.
    """

    name: str
    reason: str
    slice_bytes: int

    def __str__(self) -> str:
        return f"training slices: {PLACEMENTS[self.name]} ({self.name}), {self.reason}"


def choose_placement(
    asked: str, slices: NetworkSlices, *, batch_size: int, devices: int, room: int
) -> Placement:
    """Choose the first of PLACEMENTS that fits, unless one is asked for.

    Args:
      asked: AUTO or a key of PLACEMENTS.
      slices: the training slices.
      batch_size: slices of an update, over all devices.
      devices: number of devices that share a batch.
      room: bytes that slices may fill on each device; see `room_for_slices`.
    """
    size, n = slices.slice_bytes, len(slices)
    # A device also receives a batch from the others; see `gather_sharded`.
    needed = {"copied": n * size, "sharded": (-(-n // devices) + 2 * batch_size) * size}
    if asked != AUTO:
        return Placement(asked, f"as data.placement={asked} asks", size)
    fitting = [name for name, value in needed.items() if value <= room]
    name = fitting[0] if fitting else "streamed"
    reason = (
        f"because they take {_gigabytes(n * size)} and each device has "
        f"{_gigabytes(room)} for slices"
    )
    return Placement(name, reason, size)


def room_for_slices() -> int:
    """Return the bytes that slices may fill on each device; all processes must call this.

    It is LARGEST_SHARE of the smallest device or host of the job: slices that are placed
    on devices pass through the memory of the host.
    """
    sizes = map(memory.device_bytes, devices.local())
    smallest = min(*sizes, memory.host_bytes())
    return int(LARGEST_SHARE * job.lowest(smallest))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
