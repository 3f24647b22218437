"""Sources of training batches: a resident split, or a stream."""

import operator
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.sampling import mixed_batch_indices
from lungseg_jax.data.streaming import stream_batches
from lungseg_jax.runtime import device_mesh
from lungseg_jax.training.run_data import RunData

Batch = Callable[[int], np.ndarray]  # step -> the slices of its update, [b]


class Feed(Protocol):
    """A source of training batches, for k updates in a dispatch.

    Attributes:
      slices: all of them.
      batch: gives the slices of an update.
      images, masks: arrays, or their shapes, that `train_steps` is compiled for.
      gather: takes rows of them; see `make_train_steps`.
    """

    slices: NetworkSlices
    batch: Batch
    images: Any
    masks: Any
    gather: Callable[[jax.Array, jax.Array], jax.Array]

    def take(self, step: int, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return images, masks and indices `[k b]` of `count` <= k updates after a step."""

    def prepare(self, step: int, count: int, running: Any) -> None:
        """Make ready what `take` will be asked for next.

        Args:
          step, count: those of the next `take`.
          running: results of the dispatch that was just made.
        """

    def parts(self, batches: np.ndarray) -> Iterator[tuple[jax.Array, jax.Array]]:
        """See `batch_stats.pool_batch_stats`; devices share each batch."""

    def close(self) -> None:
        """End what runs in the background; a later `take` starts it again."""


def feed_of(c: ConfigDict, data: RunData, mesh: Mesh) -> Feed:
    """Create the feed of a run, whose batches its configuration determines."""
    batch = partial(
        mixed_batch_indices,
        n=len(data.split["train"]),
        extra=len(data.extra.names) if data.extra else 0,
        share=c.data.extra_share,
        batch_size=c.train.batch_size,
        seed=c.seed,
        devices=mesh.size if c.model.bn_per_device else 1,
    )
    return make_feed(
        data.placement.name,
        data.training_slices(c),
        batch,
        mesh,
        steps_per_dispatch=c.train.steps_per_dispatch,
        total_steps=c.train.total_steps,
    )


def make_feed(
    placement: str,
    slices: NetworkSlices,
    batch: Batch,
    mesh: Mesh,
    *,
    steps_per_dispatch: int,
    total_steps: int,
) -> Feed:
    """Create the feed of a placement, a key of `placement.PLACEMENTS`.

    Raises:
      UserError: the slices cannot be read.
    """
    if placement == "streamed":
        return StreamedFeed(slices, batch, mesh, steps_per_dispatch, total_steps)
    is_sharded = placement == "sharded" and mesh.size > 1
    return ResidentFeed(slices, batch, mesh, steps_per_dispatch, is_sharded)


class ResidentFeed:
    """All slices on the devices, copied or sharded: the host only sends indices."""

    def __init__(
        self,
        slices: NetworkSlices,
        batch: Batch,
        mesh: Mesh,
        steps_per_dispatch: int,
        is_sharded: bool,
    ):
        self.slices, self.batch, self._k = slices, batch, steps_per_dispatch
        self._indices = device_mesh.by_example(mesh, axis=1)
        if is_sharded:
            self.gather = device_mesh.gather_sharded(mesh)
            rows = -(-len(slices) // mesh.size) * mesh.size
            arrays = _put_slices(slices, rows, device_mesh.by_example(mesh))
        else:
            self.gather = operator.getitem
            arrays = _put_slices(slices, len(slices), device_mesh.replicated(mesh))
        self.images, self.masks = arrays["image"], arrays["mask"]

    def take(self, step: int, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        batches = [self.batch(s) for s in range(step, step + count)]
        indices = np.stack(_padded(batches, self._k)).astype(np.int32)
        return self.images, self.masks, device_mesh.place(indices, self._indices)

    def prepare(self, step: int, count: int, running: Any) -> None:
        """Do nothing: all slices are there."""

    def parts(self, batches: np.ndarray) -> Iterator[tuple[jax.Array, jax.Array]]:
        yield self.images, device_mesh.place(batches.astype(np.int32), self._indices)

    def close(self) -> None:
        """Do nothing: nothing runs in the background."""


class StreamedFeed:
    """Slices are read from disk, and reach the devices while the step before runs.

    The arrays of a dispatch hold only its own slices, example by example of each device:
    the device reads rows of its own part. A process reads the slices of its devices.
    """

    def __init__(
        self,
        slices: NetworkSlices,
        batch: Batch,
        mesh: Mesh,
        steps_per_dispatch: int,
        total_steps: int,
    ):
        self.slices, self.batch, self._total = slices, batch, total_steps
        self._k, self._devices = steps_per_dispatch, mesh.size
        self._sharding = device_mesh.by_example(mesh)
        self._mine = _ranks(self._sharding, mesh.size)
        is_single = mesh.size == 1
        self.gather = operator.getitem if is_single else device_mesh.gather_local(mesh)
        self.images, self.masks = (
            jax.ShapeDtypeStruct(
                (self._k * len(batch(0)), *slices.shapes[name]),
                slices.dtypes[name],
                sharding=self._sharding,
            )
            for name in ("image", "mask")
        )
        share = len(batch(0)) // mesh.size  # of a batch, for each device
        rows = np.arange(self._k * share, dtype=np.int32)
        indices = np.tile(rows.reshape(self._k, share), mesh.size)
        self._indices = device_mesh.place(indices, device_mesh.by_example(mesh, axis=1))
        self._stream: Any = None
        self._next: int | None = None  # the step that the stream gives next
        self._mover: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, int], Future] | None = None
        self._running: Any = None

    def take(self, step: int, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        ahead, self._ahead = self._ahead, None
        arrays = ahead[1].result() if ahead else None
        if not ahead or ahead[0] != (step, count):
            arrays = self._read(step, count)
        return arrays["image"], arrays["mask"], self._indices

    def prepare(self, step: int, count: int, running: Any) -> None:
        """Read and move the next slices in the background.

        The dispatch before the running one must have ended first: its slices make room.
        """
        before, self._running = self._running, running

        def read():
            jax.block_until_ready(before)
            return self._read(step, count)

        self._mover = self._mover or ThreadPoolExecutor(1)
        self._ahead = (step, count), self._mover.submit(read)

    def parts(self, batches: np.ndarray) -> Iterator[tuple[jax.Array, jax.Array]]:
        share = batches.shape[1] // self._devices
        rows = np.tile(np.arange(share, dtype=np.int32), self._devices)
        indices = device_mesh.place(rows[None], self._indices.sharding)
        for batch in batches:
            images = self.slices.stack(self._my_part(batch))["image"]
            yield self._put_batches([images], k=1), indices

    def close(self) -> None:
        if self._mover:
            self._mover.shutdown(cancel_futures=True)
        if self._stream:
            self._stream.close()
        self._stream = self._next = self._mover = self._ahead = self._running = None

    def _read(self, step: int, count: int) -> dict[str, jax.Array]:
        if self._next != step:
            if self._stream:
                self._stream.close()
            self._stream = stream_batches(
                self.slices, self._my_batch, start=step, stop=self._total
            )
        self._next = None  # where the stream is if reading fails
        batches = [next(self._stream) for _ in range(count)]
        self._next = step + count
        return {
            name: self._put_batches([batch[name] for batch in batches], k=self._k)
            for name in ("image", "mask")
        }

    def _my_batch(self, step: int) -> np.ndarray:
        """Return the slices of an update that the devices of this process need."""
        return self._my_part(self.batch(step))

    def _my_part(self, batch: np.ndarray) -> np.ndarray:
        return batch.reshape(self._devices, -1)[self._mine].ravel()

    def _put_batches(self, batches: list[np.ndarray], *, k: int) -> jax.Array:
        """Put up to `k` batches `[b' ...]` of this process on its devices, `[k*b ...]`."""
        share = len(batches[0]) // len(self._mine)
        shape = (self._devices * k * share, *batches[0].shape[1:])

        def part(index):
            first = self._mine.index((index[0].start or 0) // (k * share)) * share
            rows = [batch[first : first + share] for batch in batches]
            return np.concatenate(_padded(rows, k))

        return jax.make_array_from_callback(shape, self._sharding, part)


def _put_slices(
    slices: NetworkSlices, rows: int, sharding: jax.sharding.Sharding
) -> dict[str, jax.Array]:
    """Put `rows` slices on the devices; a process reads only those of its devices.

    Rows beyond the last slice repeat it.
    """
    shards: dict[str, list[jax.Array]] = {name: [] for name in slices.shapes}
    before = arrays = None
    for device, (index,) in sharding.addressable_devices_indices_map((rows,)).items():
        wanted = range(*index.indices(rows))
        if wanted != before:
            arrays = slices.stack([min(i, len(slices) - 1) for i in wanted])
        before = wanted
        for name, array in arrays.items():
            shards[name].append(jax.device_put(array, device))
    return {
        name: jax.make_array_from_single_device_arrays(
            (rows, *slices.shapes[name]), sharding, parts
        )
        for name, parts in shards.items()
    }


def _ranks(sharding: jax.sharding.Sharding, devices: int) -> list[int]:
    """Return the places of this process's devices in the mesh, in order."""
    parts = sharding.addressable_devices_indices_map((devices,)).values()
    return sorted(index.indices(devices)[0] for (index,) in parts)


def _padded(rows: list[np.ndarray], length: int) -> list[np.ndarray]:
    """Repeat the last row: unused rows of a dispatch hold anything."""
    return rows + (length - len(rows)) * rows[-1:]
