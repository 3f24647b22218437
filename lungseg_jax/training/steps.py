"""The compiled training and evaluation steps.

What is closed over is static; what is passed is traced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lungseg_jax.data.augmentation.transforms import augment
from lungseg_jax.metrics.overlap import count_pixels
from lungseg_jax.runtime import distributed
from lungseg_jax.runtime.compilation import jit
from lungseg_jax.training.losses import Loss, damp_outliers, track_median
from lungseg_jax.training.state import TrainState

METRICS = ("loss", "grad_norm")  # of each update
SMALLEST_KNEE = 1e-6  # keeps losses of exactly 0 from being divided by 0


def make_train_steps(
    *,
    loss: Loss,
    outlier_knee: float = 0.0,
    outlier_factor: float = 0.0,
    augmentation: Mapping[str, Any],
    normalize: Callable[[jax.Array], jax.Array] = lambda images: images,
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Create `steps(state, images, masks, indices, count) -> (state, metrics)`.

    It applies several updates in one dispatch. The training split stays on the device;
    batches are gathered and augmented inside the program, so that the host sends only
    indices. The old state is donated.

    Args:
      loss: a function of `losses.LOSSES`.
      outlier_knee: see `losses.damp_outliers`; the metric "loss" is not damped.
      outlier_factor: if positive, the knee is this multiple of the running median of the
        images' losses, which the state then tracks, and at least `outlier_knee`.
      augmentation: the keyword arguments of `augment`.
      normalize: makes augmented images the input of the network; see `to_unit`.
      seed: together with the step, it determines the augmentation.
      sharding: sharding of the results. If None, the compiler may choose another one than
        the first state has, and the second call would compile again.

    Returns:
      A compiled function of `state`, `images` `[n h w c]`, `masks` `[n h w]`, `indices`
      `[k b]` and `count` >= 1, the number of rows of `indices` to use. The metrics METRICS
      are `[k]`, zero for unused rows, and left on the device. One program serves every
      `count`.
    """
    prepare = make_prepare(augmentation, normalize, seed)
    update = _make_update(loss, outlier_knee, outlier_factor, prepare, sharding)

    def steps(state: TrainState, images, masks, indices, count):
        if len(indices) == 1:  # XLA's CPU backend runs the body of a loop more slowly
            state, metrics = update(state, images, masks, indices[0])
            return state, jax.tree.map(lambda m: m[None], metrics)

        def body(i, carry):
            state, metrics = carry
            state, latest = update(state, images, masks, indices[i])
            return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, latest)

        zeros = {name: jnp.zeros(len(indices)) for name in METRICS}
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    return jit(steps, donate_argnums=0, out_shardings=sharding)


def make_eval_step(
    model: Any,
    *,
    loss: Loss,
    threshold: float,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Create `step(variables, images, masks) -> (losses [b], counts [b 3])`, compiled.

    Counts are those of `overlap.count_pixels` at the network's size, against the soft masks
    binarized at 0.5. `sharding` applies to both results.
    """

    def step(variables: Mapping[str, Any], images: jax.Array, masks: jax.Array):
        logits = model.apply(variables, images, train=False)
        predicted = jax.nn.sigmoid(logits) > threshold
        return loss(logits, masks), count_pixels(predicted, masks >= 0.5)

    return jit(step, out_shardings=sharding)


def make_prepare(
    augmentation: Mapping[str, Any],
    normalize: Callable[[jax.Array], jax.Array],
    seed: int,
) -> Callable:
    """Create `prepare(images, masks, indices [b], step) -> (images, masks)`.

    It returns what the network sees in the update after `step`: `[b s s c]` in [0, 1], and
    masks `[b s s]`. For the arguments, see `make_train_steps`.
    """

    def prepare(images, masks, indices, step):
        key = jax.random.fold_in(jax.random.key(seed), step)
        batch = images[indices].astype(jnp.float32)
        batch, truth = augment(batch, masks[indices], key, **augmentation)
        return normalize(batch), truth

    return prepare


def _make_update(loss, outlier_knee, outlier_factor, prepare, sharding):
    def knee_and_median(median, losses):
        """Return the knee for these losses, and the running median after them."""
        if not outlier_factor:
            return outlier_knee, None
        losses = jax.lax.stop_gradient(losses)
        moved = track_median(median, losses)
        # The knee does not depend on the losses that it damps, except the very first.
        current = jnp.where(median > 0, median, moved)
        floor = max(outlier_knee, SMALLEST_KNEE)
        return jnp.maximum(outlier_factor * current, floor), moved

    def update(state: TrainState, images, masks, indices):
        batch, truth = prepare(images, masks, indices, state.step)

        def mean_loss(params):
            with distributed.sharing_batch(sharding):
                logits, updated = state.apply_fn(
                    state.variables | {"params": params},
                    batch,
                    train=True,
                    mutable=["batch_stats"],
                )
            losses = loss(logits, truth)
            knee, median = knee_and_median(state.loss_median, losses)
            damped = damp_outliers(losses, knee).mean()
            return damped, (losses.mean(), updated.get("batch_stats"), median)

        (_, (value, batch_stats, median)), grads = jax.value_and_grad(
            mean_loss, has_aux=True
        )(state.params)
        state = state.apply_gradients(
            grads=grads, batch_stats=batch_stats, loss_median=median
        )
        return state, {"loss": value, "grad_norm": optax.tree.norm(grads)}

    return update
