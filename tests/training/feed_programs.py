"""What test_feeds.py runs in processes of its own: `feed_programs.py PROGRAM ...`.

`train DATA CACHE FILE` trains from every placement, on all devices of the process, and
writes the leaves of parameters and statistics. `read DATA CACHE` is one process of a job.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.data.sampling import batch_indices, whole_batches
from lungseg_jax.models import make_model
from lungseg_jax.runtime import device_mesh, job
from lungseg_jax.training.batch_stats import make_precise_batch_stats, pool_batch_stats
from lungseg_jax.training.feeds import make_feed
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.placement import PLACEMENTS
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_train_steps

PREPROCESSING = Preprocessing("hu", 16, (-1000.0, 400.0))


def network_slices(data, cache):
    dataset = load_dataset(Path(data), cache=Path(cache))
    return NetworkSlices([(dataset, dataset.names, PREPROCESSING)], soft_masks=True)


def normalize(images):
    return (images + 1000.0) / 1400


def train(data, cache, file):
    """Check the batches of each placement, and that all train the same network."""
    slices = network_slices(data, cache)
    mesh = device_mesh.make_mesh()
    results = {
        placement: train_from(placement, slices, mesh) for placement in PLACEMENTS
    }
    for placement in PLACEMENTS:
        for a, b in zip(results["copied"], results[placement], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=placement)
    np.savez(file, *results["sharded"])
    print(jax.device_count())


def train_from(placement, slices, mesh, k=2):
    """The leaves after six steps, k of them in a dispatch, in batches of 8."""
    n, replicated = len(slices), device_mesh.replicated(mesh)
    batch = functools.partial(batch_indices, n=n, batch_size=8, seed=0)
    feed = make_feed(
        placement, slices, batch, mesh, steps_per_dispatch=k, total_steps=9
    )
    model = make_model("conv", filters=1, levels=2)
    state = make_init_fn(
        model, optax.sgd(0.1), channels=1, seed=0, sharding=replicated
    )()
    steps = make_train_steps(
        loss=bce_dice,
        augmentation={"flip_lr": True},
        normalize=normalize,
        seed=0,
        gather=feed.gather,
        sharding=replicated,
    )
    gather = jax.jit(feed.gather)
    for step in (0, 2, 4):
        images, masks, indices = feed.take(step, k)
        for i in range(k):
            expected = slices.stack(batch(step + i))
            found = gather(images, indices[i])
            assert len(found.sharding.device_set) == mesh.size
            np.testing.assert_array_equal(found, expected["image"])
            np.testing.assert_array_equal(gather(masks, indices[i]), expected["mask"])
        state, metrics = steps(state, images, masks, indices, k)
        feed.prepare(step + k, k, metrics)
    held = {shard.data.shape[0] for shard in images.addressable_shards}
    whole = {"copied": n, "sharded": -(-n // mesh.size), "streamed": 8 * k // mesh.size}
    assert held == {whole[placement]}, (placement, held)
    estimate = make_precise_batch_stats(
        model, normalize=normalize, gather=feed.gather, sharding=replicated
    )
    parts = list(feed.parts(whole_batches(n, 8, seed=0)))
    # No device computes the statistics of a batch by itself.
    text = estimate.lower(state.variables, *parts[0]).compile().as_text()
    assert f"f32[{8 // mesh.size},16,16,1]" in text
    assert ("f32[8,16,16,1]" in text) == (mesh.size == 1)
    stats = pool_batch_stats(estimate, state.variables, parts)
    feed.close()
    return jax.tree.leaves((state.params, stats))


def read(data, cache):
    """Check two batches of each placement, and print how many slices were read."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    job.initialize()
    slices = network_slices(data, cache)
    batch = functools.partial(batch_indices, n=len(slices), batch_size=8, seed=0)
    mesh = device_mesh.make_mesh()
    for placement in PLACEMENTS:
        batches, reads = take_batches(placement, slices, batch, mesh)
        for step, found in enumerate(batches):
            expected = slices.stack(batch(step))["image"]
            for shard in found.addressable_shards:
                np.testing.assert_array_equal(shard.data, expected[shard.index])
        print(placement, reads)


def take_batches(placement, slices, batch, mesh):
    """The images of two batches, and how many slices this process has read for them."""
    original, reads = NetworkSlices.__getitem__, []
    NetworkSlices.__getitem__ = lambda self, i: reads.append(i) or original(self, i)
    feed = make_feed(
        placement, slices, batch, mesh, steps_per_dispatch=1, total_steps=2
    )
    gather = jax.jit(
        lambda array, i: feed.gather(array, i[0]),
        out_shardings=device_mesh.by_example(mesh),
    )
    batches = []
    for step in range(2):
        images, _, indices = feed.take(step, 1)
        batches.append(gather(images, indices))
    feed.close()
    NetworkSlices.__getitem__ = original
    return batches, len(reads)


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    {"train": train, "read": read}[program](*arguments)
