"""Every placement gives the steps the same slices, bit for bit."""

import functools
import operator
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from feed_programs import network_slices

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.sampling import batch_indices
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.feeds import make_feed
from lungseg_jax.training.placement import PLACEMENTS

PROGRAMS = Path(__file__).with_name("feed_programs.py")


@pytest.fixture
def slices(pair_folder, tmp_path):
    """Seven slices."""
    return network_slices(pair_folder("abcdefg", size=32), tmp_path / "cache")


@pytest.fixture
def feed_of(slices):
    """`make(placement, k=1)`: a feed of batches of 3, in epochs of 7."""
    feeds = []

    def make(placement, k=1):
        batch = functools.partial(batch_indices, n=7, batch_size=3, seed=5)
        mesh = device_mesh.make_mesh(device_mesh.devices_for(1))
        options = {"steps_per_dispatch": k, "total_steps": 12}
        feeds.append(make_feed(placement, slices, batch, mesh, **options))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def assert_holds(feed, inputs, step, count):
    """Check the batches of a `take`."""
    images, masks, indices = inputs
    assert indices.shape == (feed.images.shape[0] // 3, 3) or feed.images is images
    for i in range(count):
        expected = feed.slices.stack(feed.batch(step + i))
        for name, array in (("image", images), ("mask", masks)):
            assert array.dtype == expected[name].dtype
            found = feed.gather(array, indices[i])
            np.testing.assert_array_equal(found, expected[name])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_batches_are_those_of_the_seed(feed_of, placement):
    """From any step, in any order, and beyond the end of an epoch."""
    feed = feed_of(placement)
    for step in (0, 1, 2, 3, 9, 4, 5, 11):
        assert_holds(feed, feed.take(step, 1), step, 1)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_dispatch_holds_several_batches(feed_of, placement):
    feed = feed_of(placement, k=3)
    for step, count in ((0, 3), (3, 1), (4, 2), (6, 3)):
        inputs = feed.take(step, count)
        assert inputs[0].shape == feed.images.shape
        assert inputs[2].shape == (3, 3)
        assert_holds(feed, inputs, step, count)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_batches_that_were_made_ready_are_the_same(feed_of, placement):
    """Also if something else is asked for, and after the feed was closed."""
    feed = feed_of(placement, k=2)
    for step in (0, 2, 4):
        assert_holds(feed, feed.take(step, 2), step, 2)
        feed.prepare(step + 2, 2, running=())
    assert_holds(feed, feed.take(8, 1), 8, 1)
    feed.prepare(9, 1, running=())
    feed.close()
    assert_holds(feed, feed.take(9, 1), 9, 1)


def test_a_stream_keeps_nothing_on_the_device(feed_of):
    assert feed_of("streamed").images.shape == (3, 16, 16, 1)
    assert feed_of("copied").images.shape == (7, 16, 16, 1)


def test_a_slice_that_cannot_be_read_ends_the_step_that_needs_it(feed_of, monkeypatch):
    """It is read ahead, while the steps before are still to be saved."""
    feed, read = feed_of("streamed"), NetworkSlices.__getitem__
    spoilt = feed.batch(2)[0]

    def fail(self, i):
        if i == spoilt:
            raise UserError(f"{i} is damaged.")
        return read(self, i)

    step = next(s for s in range(12) if spoilt in feed.batch(s))
    monkeypatch.setattr(NetworkSlices, "__getitem__", fail)
    for earlier in range(step):
        feed.take(earlier, 1)
        feed.prepare(earlier + 1, 1, running=())
    with pytest.raises(UserError, match="is damaged"):
        feed.take(step, 1)


def test_one_device_gathers_without_a_program_of_its_own(feed_of):
    assert {feed_of(placement).gather for placement in PLACEMENTS} == {operator.getitem}


@pytest.fixture
def train_on(run_on_devices, pair_folder, tmp_path):
    """`train(devices)`: the leaves after six steps, from slices that were sharded."""
    folder = pair_folder([f"s{i:02}" for i in range(19)], size=32)

    def train(devices):
        file = tmp_path / f"{devices}.npz"
        printed = run_on_devices(
            devices, PROGRAMS, "train", folder, tmp_path / "cache", file
        )
        assert printed.split()[-1] == str(devices)
        with np.load(file) as arrays:
            return [arrays[name] for name in arrays.files]

    return train


def test_eight_devices_that_share_the_slices_train_as_one(train_on):
    """19 slices are not divisible by 8. Batches are exact, and the results to rounding."""
    for one, eight in zip(train_on(1), train_on(8), strict=True):
        np.testing.assert_allclose(eight, one, rtol=2e-3, atol=2e-4)


def test_two_processes_read_their_own_slices(pair_folder, tmp_path):
    """Each has two devices, and all batches are those of one process."""
    folder = pair_folder([f"s{i:02}" for i in range(16)], size=32)
    load_dataset(folder, cache=tmp_path / "cache")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAMS, "read", folder, tmp_path / "cache"],
            env=os.environ | job | {"XLA_FLAGS": flags, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        lines = [line for line in output.splitlines() if line.split()[0] in PLACEMENTS]
        # All 16 slices, a half of them, and a half of two batches of 8.
        assert lines == ["copied 16", "sharded 8", "streamed 8"]
