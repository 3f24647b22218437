"""One mesh over all devices: batches are split over it, everything else is copied.

Under `jit` the mean over a sharded batch is global, so batch norm and losses need no
axis name and one program serves one device or many.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices=None) -> Mesh:
    """A one-axis mesh `("batch",)` over `devices`, by default all there are."""
    return Mesh(np.array(devices or jax.devices()), ("batch",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters: a full copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """The sharding of batches: the axis of the examples split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*axis * [None], "batch"))
