"""The mesh of devices that share a batch, and what is placed on it.

Batches are split over one mesh of all devices, and so are training slices that do not fit
on each of them; everything else is replicated. Under `jit` the mean over a sharded batch
is global, so batch norm and losses need no axis name and the same program serves any number
of devices.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding


def devices_for(batch_size: int) -> list[jax.Device]:
    """Return the devices that share a batch: the most that divide it evenly.

    A job of several processes uses all of its devices, whether they do or not.
    """
    devices = jax.devices()
    if jax.process_count() > 1:
        return devices
    counts = (n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return devices[: max(counts)]


def make_mesh(devices=None) -> Mesh:
    """Create a one-axis mesh `("batch",)` over `devices`, by default all of them."""
    return Mesh(np.array(devices or jax.devices()), ("batch",))


def flatten(mesh: Mesh) -> Mesh:
    """Return a mesh of the same devices as `make_mesh` makes it."""
    return make_mesh([*mesh.devices.flat])


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of parameters: a full copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Return the sharding of batches: the example axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*axis * [None], "batch"))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Place arrays that every process holds; each process places what its devices need.

    `jax.device_put` would first compare the arrays of all processes, at every call.
    """

    def place_array(array):
        array = np.asarray(array)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    return jax.tree.map(place_array, tree)


def gather_sharded(mesh: Mesh) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Create `gather(array [n ...], indices [b]) -> [b ...]` for an array by example.

    Each device reads from its part the rows that every device needs, and sends each device
    its own: b rows for each device, of which one in `mesh.size` is the right one. That
    moves bytes and computes nothing, so that the rows are exact whatever their dtype.
    """

    def gather(part, indices):
        needed = jax.lax.all_gather(indices, "batch", tiled=True)
        first = jax.lax.axis_index("batch") * len(part)
        rows = part[jnp.clip(needed - first, 0, len(part) - 1)]
        by_receiver = rows.reshape(mesh.size, len(indices), *rows.shape[1:])
        by_sender = jax.lax.all_to_all(by_receiver, "batch", 0, 0)
        return by_sender[indices // len(part), jnp.arange(len(indices))]

    return _by_device(gather, mesh)


def gather_local(mesh: Mesh) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Create `gather(array [n ...], indices [b]) -> [b ...]` without communication.

    The array is by example, and an index is that of a row in the part of its own device.
    """
    return _by_device(lambda part, indices: part[indices], mesh)


def _by_device(gather: Callable, mesh: Mesh) -> Callable:
    example = PartitionSpec("batch")
    return jax.shard_map(
        gather, mesh=mesh, in_specs=(example, example), out_specs=example
    )


def sharing_batch(sharding: Sharding | None) -> contextlib.AbstractContextManager:
    """Let what is traced in the block know the devices that share the batch.

    See `convolutions.apply_kernel`, which has them add gradients in float32.
    """
    if isinstance(sharding, NamedSharding):
        return jax.sharding.use_abstract_mesh(sharding.mesh.abstract_mesh)
    return contextlib.nullcontext()
