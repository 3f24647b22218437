"""The compiled step: one program, a falling loss, honest batch statistics."""

import jax
import numpy as np
import optax
import pytest

from lungseg_jax.models import make_model
from lungseg_jax.runtime import compilation, distributed
from lungseg_jax.training.batch_stats import make_precise_batch_stats
from lungseg_jax.training.losses import bce, bce_dice
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_eval_step, make_train_steps

ON = {"zoom": 0.1, "shift": 0.1, "rotation_deg": 5.0, "flip_lr": True, "flip_ud": True}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 32, 32), np.float32)
    masks[:, 8:24, 6:20] = 1
    noise = rng.normal(0, 0.1, (6, 32, 32, 1)).astype(np.float32)
    return masks[..., None] * 0.8 + noise, masks


def new_state(seed=0):
    copied = distributed.replicated(distributed.make_mesh())
    tx = optax.adam(3e-3)
    model = make_model("conv", filters=2)
    init = make_init_fn(model, tx, channels=1, seed=seed, sharding=copied)
    return init(), copied


def test_loss_falls_and_the_step_compiles_once(data):
    state, copied = new_state()
    step = make_train_steps(loss=bce_dice, augmentation=ON, seed=0, sharding=copied)
    losses = []
    for i in range(25):
        indices = np.arange(i, i + 4) % 6
        state, metrics = step(state, *data, indices[None], 1)
        losses.append(float(metrics["loss"][0]))
    assert int(state.step) == 25
    assert losses[-1] < 0.6 * losses[0]
    assert step._cache_size() == 1


def test_augmentation_is_a_function_of_seed_and_step(data):
    def first_loss(step_number, seed):
        state, copied = new_state()
        step = make_train_steps(loss=bce, augmentation=ON, seed=seed, sharding=copied)
        state = state.replace(step=jax.device_put(np.int32(step_number), copied))
        return float(step(state, *data, np.arange(4)[None], 1)[1]["loss"][0])

    assert first_loss(3, seed=0) == first_loss(3, seed=0)
    assert len({first_loss(3, seed=0), first_loss(4, seed=0), first_loss(3, 1)}) == 3


def test_the_old_state_is_donated(data):
    state, copied = new_state()
    step = make_train_steps(loss=bce, augmentation={}, seed=0, sharding=copied)
    step(state, *data, np.arange(4)[None], 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_images_above_the_knee_pull_less_and_the_loss_is_reported_whole(data):
    def first_metrics(knee):
        state, copied = new_state()
        step = make_train_steps(
            loss=bce_dice, outlier_knee=knee, augmentation={}, seed=0, sharding=copied
        )
        metrics = step(state, *data, np.arange(1)[None], 1)[1]
        return {name: values[0] for name, values in metrics.items()}

    plain, damped = first_metrics(0.0), first_metrics(0.1)
    assert float(damped["loss"]) == pytest.approx(float(plain["loss"]))
    ratio = float(damped["grad_norm"]) / float(plain["grad_norm"])
    assert ratio == pytest.approx(0.1 / float(plain["loss"]), rel=1e-3)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU backend")
def test_this_jaxlib_knows_our_options_for_the_cpu():
    """Where one does not, the step still runs, and slower: this is how we notice."""
    assert compilation._cpu_options()


def test_eval_step_counts_by_hand():
    class Identity:
        """A "network" whose logits are its input."""

        def apply(self, variables, images, train):
            return images[..., 0]

    step = make_eval_step(Identity(), loss=bce, threshold=0.5)
    logits = np.array([[[5.0, 5.0], [-5.0, -5.0]]], np.float32)
    masks = np.array([[[1.0, 0.2], [0.5, 0.0]]], np.float32)  # 0.5 counts as lung
    losses, counts = step({}, logits[..., None], masks)
    assert counts.tolist() == [[1, 1, 1]]  # tp, fp, fn
    # log(1+e^-5) twice; the others by p log p: 5(1-0.2) and 5*0.5 above it.
    assert losses[0] == pytest.approx(np.log1p(np.exp(-5)) + (4.0 + 2.5) / 4, rel=1e-5)


def test_population_stats_of_the_first_layer_are_those_of_the_whole_set(data):
    """The first norm sees a linear map of the input: its moments can be worked out."""
    images, _ = data
    state, copied = new_state()
    estimate = make_precise_batch_stats(make_model("conv", filters=2), sharding=copied)
    batches = np.array([[0, 1], [2, 3], [4, 5]])
    stats = estimate(state.variables, images, batches)
    conv = state.params["down_1"]["layer"]["conv"]
    response = jax.lax.conv_general_dilated(
        images,
        conv["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    norm = stats["down_1"]["layer"]["norm"]
    np.testing.assert_allclose(norm["mean"], response.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm["var"], response.var((0, 1, 2)), rtol=1e-3)
    # The running ones, still at their start, are far from them.
    assert np.abs(state.batch_stats["down_1"]["layer"]["norm"]["var"] - 1).max() == 0
