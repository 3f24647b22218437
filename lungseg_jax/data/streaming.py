"""Batches that are read from disk while a training runs, through Grain.

The order is that of `sampling`: a batch is a function of (seed, step). A stream that starts
at a step therefore continues what an earlier one has left, and needs no state of its own.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lungseg_jax.data.network_slices import NetworkSlices

BATCHES_AHEAD = 2  # that are read before they are asked for
MOST_THREADS = 16


def stream_batches(
    slices: NetworkSlices,
    batch: Callable[[int], np.ndarray],
    *,
    start: int,
    stop: int,
) -> Iterator[Mapping[str, np.ndarray]]:
    """Return an iterator over the batches of the updates after `start` to `stop` - 1.

    Slices are read and converted in threads, so that memory holds BATCHES_AHEAD batches and
    the one that is returned, however many slices there are.

    Args:
      slices: all slices.
      batch: returns the slices to read for the update after a step, `[b]`.
      start: updates that are done.
      stop: updates after which the stream ends.

    Returns:
      An iterator of "image" `[b s s c]` and "mask" `[b s s]`, with a method `close`. Its
      `next` raises what reading raised.
    """
    import grain  # takes half a second, which only streamed trainings need to pay

    size = len(batch(start))
    batch = functools.lru_cache(maxsize=BATCHES_AHEAD + 2)(batch)
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    options = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(BATCHES_AHEAD * size, threads)
    )
    positions = grain.MapDataset.range(start * size, stop * size)
    items = positions.map(lambda p: slices[int(batch(p // size)[p % size])])
    return iter(items.to_iter_dataset(options).batch(size))
