"""The same training on one device and on eight."""

import functools

import jax
import numpy as np
import pytest

from lungseg_jax.runtime import device_mesh

CHILD = """
import sys
import jax, numpy as np, optax
from lungseg_jax.runtime import device_mesh
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.models import make_model
from lungseg_jax.training.steps import make_train_steps
from lungseg_jax.training.state import make_init_fn

mesh = device_mesh.make_mesh()
replicated, by_example = device_mesh.replicated(mesh), device_mesh.by_example(mesh, axis=1)
tx = optax.adamw(2e-3)
model = make_model("conv", filters=1, levels=2)
state = make_init_fn(model, tx, channels=1, seed=0, sharding=replicated)()
masks = np.zeros((10, 32, 32), np.float32)
masks[:, 8:24, 6:20] = 1
noise = np.random.default_rng(0).normal(0, 0.3, (10, 32, 32, 1))
images = (masks[..., None] + noise).astype(np.float32)
images, masks = jax.device_put((images, masks), replicated)
augmentation = dict(zoom=0.1, shift=0.1, rotation_deg=5.0, flip_lr=True, flip_ud=True)
step = make_train_steps(
    loss=bce_dice,
    augmentation=augmentation,
    seed=0,
    accumulate=int(sys.argv[2]),
    sharding=replicated,
)
losses = []
for i in range(8):
    indices = device_mesh.place(((np.arange(8) + i) % 10)[None], by_example)
    state, metrics = step(state, images, masks, indices, 1)
    losses.append(float(metrics["loss"][0]))
leaves = jax.tree.leaves((state.params, state.batch_stats))
np.savez(sys.argv[1], np.array(losses), *leaves)
cached = step._cache_size()
text = step.lower(state, images, masks, indices, 1).compile().as_text()
moves = [x for x in ("all-gather", "all-to-all", "collective-permute") if x in text]
print(jax.device_count(), cached, *moves)
"""


@pytest.fixture(scope="module")
def trained(run_on_devices, tmp_path_factory):
    @functools.cache
    def train(devices, accumulate=1):
        file = tmp_path_factory.mktemp("devices") / "state.npz"
        printed = run_on_devices(devices, CHILD, file, accumulate)
        # Compiled once; and no slice leaves its device.
        assert printed.split() == [str(devices), "1"]
        with np.load(file) as arrays:
            return [arrays[name] for name in arrays.files]

    return train


def test_eight_devices_train_as_one(trained):
    """The means over a batch are global: losses, parameters and batch statistics agree."""
    for one, eight in zip(trained(1), trained(8), strict=True):
        np.testing.assert_allclose(eight, one, rtol=2e-3, atol=2e-4)
    assert trained(1)[0][-1] < trained(1)[0][0]  # the loss fell


def test_micro_batches_are_divided_among_devices(trained):
    """Each is that of one device, so that batch norm sees the same slices."""
    for one, four in zip(trained(1, 2), trained(4, 2), strict=True):
        np.testing.assert_allclose(four, one, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    "batch,devices,used",
    [(8, 1, 1), (8, 2, 2), (8, 8, 8), (8, 16, 8), (8, 6, 4), (7, 4, 1), (16, 12, 8)],
)
def test_uses_the_most_devices_that_divide_a_batch(batch, devices, used, monkeypatch):
    every = list(range(devices))
    monkeypatch.setattr(jax, "devices", lambda: every)
    assert device_mesh.devices_for(batch) == every[:used]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert device_mesh.devices_for(batch) == every


def test_shardings():
    mesh = device_mesh.make_mesh()
    assert mesh.size == jax.device_count()
    assert device_mesh.replicated(mesh).is_fully_replicated
    assert device_mesh.by_example(mesh).spec == jax.sharding.PartitionSpec("batch")
