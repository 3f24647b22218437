"""The compiled steps: one program, a falling loss, seeded augmentation, damped outliers."""

import functools
import re

import jax
import numpy as np
import optax
import pytest

from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables, init_variables
from lungseg_jax.runtime import device_mesh
from lungseg_jax.training.losses import bce_dice
from lungseg_jax.training.state import make_init_fn
from lungseg_jax.training.steps import make_train_steps

ON = {"zoom": 0.1, "shift": 0.1, "rotation_deg": 5.0, "flip_lr": True, "flip_ud": True}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 32, 32), np.float32)
    masks[:, 8:24, 6:20] = 1
    noise = rng.normal(0, 0.1, (6, 32, 32, 1)).astype(np.float32)
    return masks[..., None] * 0.8 + noise, masks


@pytest.fixture(scope="module")
def new_state():
    """`new_state()` -> state and its sharding: equal ones, of one model and optimizer."""
    copied = device_mesh.replicated(device_mesh.make_mesh())
    tx = optax.adam(3e-3)
    model = make_model("conv", filters=1, levels=2)
    init = make_init_fn(model, tx, channels=1, seed=0, sharding=copied)
    return lambda: (init(), copied)


@functools.cache  # one program for several tests
def make_step(seed):
    copied = device_mesh.replicated(device_mesh.make_mesh())
    return make_train_steps(loss=bce_dice, augmentation=ON, seed=seed, sharding=copied)


def test_loss_falls_and_the_step_compiles_once(data, new_state):
    state, _ = new_state()
    step = make_step(0)
    losses = []
    for i in range(25):
        indices = np.arange(i, i + 4) % 6
        state, metrics = step(state, *data, indices[None], 1)
        losses.append(float(metrics["loss"][0]))
    assert int(state.step) == 25
    assert losses[-1] < 0.6 * losses[0]
    assert step._cache_size() == 1


def test_augmentation_is_a_function_of_seed_and_step(data, new_state):
    def first_loss(step_number, seed):
        state, copied = new_state()
        step = make_step(seed)
        state = state.replace(step=jax.device_put(np.int32(step_number), copied))
        return float(step(state, *data, np.arange(4)[None], 1)[1]["loss"][0])

    assert first_loss(3, 0) == first_loss(3, 0)
    assert len({first_loss(3, 0), first_loss(4, 0), first_loss(3, 1)}) == 3


def test_the_old_state_is_donated(data, new_state):
    state, _ = new_state()
    make_step(0)(state, *data, np.arange(4)[None], 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_outliers_are_damped_in_the_gradient_but_not_in_the_reported_loss(
    data, new_state
):
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


def test_the_knee_follows_the_running_median(data):
    """A knee of half the first loss; then half the median, which has moved by then."""
    copied = device_mesh.replicated(device_mesh.make_mesh())
    init = make_init_fn(
        make_model("conv", filters=2, levels=2),
        optax.set_to_zero(),  # the losses stay as they are
        channels=1,
        seed=0,
        track_loss=True,
        sharding=copied,
    )

    def run(median, **knees):
        state = init().replace(loss_median=jax.device_put(np.float32(median), copied))
        step = make_train_steps(
            loss=bce_dice, augmentation={}, seed=0, sharding=copied, **knees
        )
        state, metrics = step(state, *data, np.arange(1)[None], 1)
        loss, norm = (float(metrics[name][0]) for name in ("loss", "grad_norm"))
        return loss, norm, state.loss_median

    loss, plain, untouched = run(0.0)
    assert untouched is None
    _, norm, median = run(0.0, outlier_factor=0.5)  # nothing seen yet
    assert norm == pytest.approx(0.5 * plain, rel=1e-3)
    assert float(median) == pytest.approx(loss)
    _, norm, median = run(loss / 8, outlier_factor=2.0)
    assert norm == pytest.approx(plain / 4, rel=1e-3)
    assert float(median) == pytest.approx(loss / 8 * np.exp(0.05), rel=1e-5)
    # `outlier_knee` is the smallest knee.
    _, norm, _ = run(loss / 8, outlier_factor=2.0, outlier_knee=0.5 * loss)
    assert norm == pytest.approx(plain / 2, rel=1e-3)


def updates_of(model, data, accumulate):
    """Train three updates of six slices, in float32."""
    copied = device_mesh.replicated(device_mesh.make_mesh())
    init = make_init_fn(model, optax.sgd(0.1), channels=1, seed=0, sharding=copied)
    step = make_train_steps(
        loss=bce_dice,
        augmentation=ON,
        seed=0,
        accumulate=accumulate,
        sharding=copied,
    )
    state, losses = init(), []
    for i in range(3):
        state, metrics = step(state, *data, ((np.arange(6) + i) % 6)[None], 1)
        losses.append(jax.device_get(metrics))
    return state, losses


def assert_close(first, second):
    check = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)
    jax.tree.map(check, first, second)


def test_accumulated_updates_are_those_of_one_batch(data):
    """Without batch norm, whose moments depend on the batch; augmentation included."""
    model = make_model("conv", filters=1, levels=2, norm="group")
    one, losses = updates_of(model, data, 1)
    three, same_losses = updates_of(model, data, 3)
    assert_close(three.params, one.params)
    assert_close(same_losses, losses)


def test_accumulation_takes_less_memory(data):
    init = make_init_fn(
        make_model("conv", filters=1, levels=2), optax.sgd(0.1), channels=1, seed=0
    )

    def temporaries(accumulate):
        step = make_train_steps(
            loss=bce_dice, augmentation={}, seed=0, accumulate=accumulate
        )
        lowered = step.lower(init.eval_shape(), *data, np.arange(6)[None], 1)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(6) < temporaries(1) / 2


def test_batch_norm_sees_each_micro_batch_by_itself(data):
    """One update: the means of the gradients and of the statistics of the halves."""
    copied = device_mesh.replicated(device_mesh.make_mesh())
    model = make_model("conv", filters=1, levels=2)
    init = make_init_fn(model, optax.sgd(1.0), channels=1, seed=0, sharding=copied)

    def update(indices, accumulate):
        step = make_train_steps(
            loss=bce_dice,
            augmentation={},
            seed=0,
            accumulate=accumulate,
            sharding=copied,
        )
        state, metrics = step(init(), *data, np.array([indices]), 1)
        return state.params, state.batch_stats, metrics["loss"]

    whole = update([0, 1, 2, 3], 2)
    halves = update([0, 2], 1), update([1, 3], 1)
    assert_close(whole, jax.tree.map(lambda a, b: (a + b) / 2, *halves))


@pytest.mark.parametrize(
    "name", ["conv", pytest.param("inception", marks=pytest.mark.slow)]
)
def test_remat_recomputes_blocks_and_gives_the_same_gradients(name):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 64, 64, 1)).astype(np.float32)
    masks = (rng.random((2, 64, 64)) > 0.5).astype(np.float32)
    variables = init_variables(
        make_model(name, filters=2, levels=2), channels=1, seed=0
    )

    def gradient(remat):
        model = make_model(name, filters=2, levels=2, remat=remat)

        def mean_loss(params):
            logits, updated = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return bce_dice(logits, masks).mean(), updated

        compiled = jax.jit(jax.grad(mean_loss, has_aux=True)).lower(variables["params"])
        return compiled.compile(), str(compiled.as_text())

    (plain, plain_text), (remat, remat_text) = gradient(False), gradient(True)
    assert_close(remat(variables["params"]), plain(variables["params"]))
    # XLA's CPU backend merges both computations again: only the program tells.
    barriers = [text.count("optimization_barrier") for text in (plain_text, remat_text)]
    assert barriers[1] >= barriers[0] + 4  # one for each block


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_the_precision_reaches_every_product_of_the_lowered_program(precision):
    model = make_model("inception", filters=1, levels=2, precision=precision)
    variables = abstract_variables(model, channels=1)
    images = jax.ShapeDtypeStruct((1, 16, 16, 1), np.float32)

    def total(variables, images):
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits.sum()

    text = jax.jit(jax.grad(total)).lower(variables, images).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", text)
    assert len(products) > 50
    other = {"HIGH", "HIGHEST", "DEFAULT"} - {precision.upper()}
    for product in products:
        found = set(re.findall(r"\b(?:DEFAULT|HIGHEST|HIGH)\b", product))
        assert not found & other, product
        assert found or precision == "default", product
