"""The compiled training steps.

What is closed over is static; what is passed is traced.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lungseg_jax.data.augmentation.transforms import augment
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.compilation import jit
from lungseg_jax.training.losses import Loss, damp_outliers, track_median
from lungseg_jax.training.state import TrainState

UPDATE_METRICS = "loss", "grad_norm"
SMALLEST_KNEE = 1e-6  # keeps losses of exactly 0 from being divided by 0


def make_train_steps(
    *,
    loss: Loss,
    outlier_knee: float = 0.0,
    outlier_factor: float = 0.0,
    augmentation: Mapping[str, Any],
    normalize: Callable[[jax.Array], jax.Array] = lambda images: images,
    seed: int,
    accumulate: int = 1,
    gather: Callable[[jax.Array, jax.Array], jax.Array] = operator.getitem,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Create `steps(state, images, masks, indices, count) -> (state, metrics)`.

    It applies several updates in one dispatch. Batches are gathered and augmented inside
    the program: if the training split stays on the device, the host sends only indices. The
    old state is donated.

    Args:
      loss: a function of `losses.LOSSES`.
      outlier_knee: see `losses.damp_outliers`; the metric "loss" is not damped.
      outlier_factor: if positive, the knee is this multiple of the running median of the
        images' losses, which the state then tracks, and at least `outlier_knee`.
      augmentation: the keyword arguments of `augment`.
      normalize: makes augmented images the input of the network; see
        `Preprocessing.to_unit`.
      seed: together with the step, it determines the augmentation.
      accumulate: micro-batches of an update, one after the other; it divides b. Each has
        its own moments in batch norm; see `_accumulate`.
      gather: returns the rows `[b ...]` of an array `[n ...]` at indices `[b]`.
      sharding: sharding of the results. If None, the compiler may choose another one than
        the first state has, and the second call would compile again.

    Returns:
      A compiled function of `state`, `images` `[n h w c]`, `masks` `[n h w]` (see
      `pack_mask`), `indices` `[k b]` and `count` >= 1, the number of rows of `indices` to
      use. The UPDATE_METRICS are `[k]`, zero for unused rows, and left on the device. One
      program serves every `count`.
    """
    prepare = make_prepare(augmentation, normalize, seed, gather)
    gradient = _make_gradient(loss, outlier_knee, outlier_factor, sharding)
    if accumulate > 1:
        gradient = _accumulate(gradient, accumulate)
    update = _make_update(prepare, gradient, tracks_median=outlier_factor > 0)

    def steps(state: TrainState, images, masks, indices, count):
        if len(indices) == 1:  # XLA's CPU backend runs the body of a loop more slowly
            state, metrics = update(state, images, masks, indices[0])
            return state, jax.tree.map(lambda m: m[None], metrics)

        def body(i, carry):
            state, metrics = carry
            state, latest = update(state, images, masks, indices[i])
            return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, latest)

        zeros = {name: jnp.zeros(len(indices)) for name in UPDATE_METRICS}
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    return jit(steps, donate_argnums=0, out_shardings=sharding)


def make_prepare(
    augmentation: Mapping[str, Any],
    normalize: Callable[[jax.Array], jax.Array],
    seed: int,
    gather: Callable[[jax.Array, jax.Array], jax.Array] = operator.getitem,
) -> Callable:
    """Create `prepare(images, masks, indices [b], step) -> (images, masks)`.

    It returns what the network sees in the update after `step`: `[b s s c]` in [0, 1], and
    masks `[b s s]`. For the arguments, see `make_train_steps`.
    """

    def prepare(images, masks, indices, step):
        key = jax.random.fold_in(jax.random.key(seed), step)
        batch = gather(images, indices).astype(jnp.float32)
        truth = unpack_masks(gather(masks, indices))
        batch, truth = augment(batch, truth, key, **augmentation)
        return normalize(batch), truth

    return prepare


def _make_update(prepare, gradient, *, tracks_median):
    def update(state: TrainState, images, masks, indices):
        batch, truth = prepare(images, masks, indices, state.step)
        grads, losses, batch_stats = gradient(state, batch, truth)
        median = track_median(state.loss_median, losses) if tracks_median else None
        state = state.apply_gradients(
            grads=grads, batch_stats=batch_stats, loss_median=median
        )
        return state, {"loss": losses.mean(), "grad_norm": optax.tree.norm(grads)}

    return update


def _make_gradient(loss, outlier_knee, outlier_factor, sharding):
    """Create `gradient(state, images, masks) -> (gradient, losses [b], batch_stats)`."""

    def knee_of(median, losses):
        if not outlier_factor:
            return outlier_knee
        # The knee does not depend on the losses that it damps, except the very first.
        losses = jax.lax.stop_gradient(losses)
        current = jnp.where(median > 0, median, jnp.median(losses))
        return jnp.maximum(outlier_factor * current, max(outlier_knee, SMALLEST_KNEE))

    def gradient(state: TrainState, batch, truth):
        def mean_loss(params):
            with device_mesh.sharing_batch(sharding):
                logits, updated = state.apply_fn(
                    state.variables | {"params": params},
                    batch,
                    train=True,
                    mutable=["batch_stats"],
                )
            losses = loss(logits, truth)
            damped = damp_outliers(losses, knee_of(state.loss_median, losses)).mean()
            return damped, (losses, updated.get("batch_stats"))

        grads, (losses, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
        return grads, losses, batch_stats

    return gradient


def _accumulate(gradient, parts):
    """Return `gradient` over `parts` micro-batches, which holds the activations of one.

    The gradient is the mean over the micro-batches, and so are the batch statistics: each
    micro-batch is normalized by its own moments, over all devices, and moves the running
    statistics of before the update; the mean of the results is kept. A running mean is
    thus the mean over the batch, and a running variance leaves out the variance between
    the means of the micro-batches. Without batch norm, an update is that of one batch, but
    for rounding and for the knee of the very first update with an `outlier_factor`, which
    is the median of a micro-batch.
    """

    def accumulated(state: TrainState, batch, truth):
        def split(array):
            # A micro-batch is every parts-th example, so that none leaves its device.
            return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

        def add(total, part):
            grads, losses, batch_stats = gradient(state, *part)
            return jax.tree.map(jnp.add, total, (grads, batch_stats)), losses

        zeros = jax.tree.map(jnp.zeros_like, (state.params, state.batch_stats))
        total, losses = jax.lax.scan(add, zeros, (split(batch), split(truth)))
        grads, batch_stats = jax.tree.map(lambda a: a / parts, total)
        return grads, losses.swapaxes(0, 1).ravel(), batch_stats

    return accumulated
