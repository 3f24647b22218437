"""The compiled functions. What is closed over is static; what is passed is traced."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from lungseg_jax.data.augmentation import augment
from lungseg_jax.metrics import overlap
from lungseg_jax.training.losses import damp_outliers
from lungseg_jax.training.state import TrainState

Variables = Mapping[str, Any]  # {"params": ..., "batch_stats": ...}
FLIPS = ((), (1,), (2,), (1, 2))  # axes of [b h w c] and of [b h w]


def make_train_step(
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    outlier_knee: float = 0.0,
    augmentation: Mapping[str, Any],
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """One update: `step(state, images, masks, indices) -> (state, metrics)`.

    The split lies on the device; the batch is gathered and augmented inside the program,
    so that the host sends `indices` and nothing else. The old state is donated.

    Args:
      loss: of `lungseg_jax.training.losses`.
      outlier_knee: of `losses.damp_outliers`; the metric "loss" is not damped.
      augmentation: the keywords of `augment`.
      seed: with the step it gives the augmentation.
      sharding: of what is returned. Left open, the compiler may choose another one than
        the first state has, and the second call compiles again.

    Returns:
      A compiled function of `state`, `images` `[n h w c]`, `masks` `[n h w]`, `indices`
      `[b]`; metrics are the scalars "loss" and "grad_norm", left on the device.
    """
    update = _make_update(loss, outlier_knee, augmentation, seed)
    return _compiled(update, donate_argnums=0, out_shardings=sharding)


def make_train_steps(
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    outlier_knee: float = 0.0,
    augmentation: Mapping[str, Any],
    seed: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Several updates in one dispatch: `steps(state, images, masks, indices, count)`.

    Args: those of `make_train_step`.

    Returns:
      A compiled function like that of `make_train_step`, with `indices` `[k b]`, of which
      the first `count` >= 1 rows are used; the metrics are `[k]`, zero where no update
      was. One program serves every `count`.
    """
    update = _make_update(loss, outlier_knee, augmentation, seed)

    def updates(state: TrainState, images, masks, indices, count):
        if len(indices) == 1:  # XLA's CPU backend runs a loop's body slower
            state, metrics = update(state, images, masks, indices[0])
            return state, jax.tree.map(lambda m: m[None], metrics)

        def body(i, carry):
            state, metrics = carry
            state, latest = update(state, images, masks, indices[i])
            return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, latest)

        blank = {name: jnp.zeros(len(indices)) for name in ("loss", "grad_norm")}
        return jax.lax.fori_loop(0, count, body, (state, blank))

    return _compiled(updates, donate_argnums=0, out_shardings=sharding)


def _make_update(loss, outlier_knee, augmentation, seed):
    def update(state: TrainState, images, masks, indices):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        batch, truth = augment(images[indices], masks[indices], key, **augmentation)

        def mean_loss(params):
            logits, updated = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                batch,
                train=True,
                mutable=["batch_stats"],
            )
            losses = loss(logits, truth)
            damped = damp_outliers(losses, outlier_knee).mean()
            return damped, (losses.mean(), updated["batch_stats"])

        (_, (value, batch_stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params
        )
        state = state.apply_gradients(grads=grads, batch_stats=batch_stats)
        return state, {"loss": value, "grad_norm": optax.tree.norm(grads)}

    return update


@functools.cache  # many ensembles of a process are of one model
def make_ensemble_predict(
    model: nn.Module, *, vectorize: bool, flips: bool = False
) -> Callable:
    """`predict(members, images [b h w c]) -> probabilities [m b h w]`.

    Args:
      model: of every member.
      vectorize: run the members at once, as `vmap`, or one after the other. At once is
        for accelerators: on the CPU the batched kernels become grouped convolutions,
        1.8 times slower than the loop (`benchmarks/formulations.py --size 256`).
      flips: average each member over the image and its three mirror images, for four
        times the work.

    Returns:
      A compiled function of `members`, variables with a leading axis m on each array.
    """

    def predict(members: Variables, images: jax.Array) -> jax.Array:
        def one(variables):
            def probabilities(x):
                return jax.nn.sigmoid(model.apply(variables, x, train=False))

            if not flips:
                return probabilities(images)
            mirrored = jnp.stack([jnp.flip(images, axes) for axes in FLIPS])
            back = zip(jax.lax.map(probabilities, mirrored), FLIPS, strict=True)
            return jnp.stack([jnp.flip(p, axes) for p, axes in back]).mean(0)

        return jax.vmap(one)(members) if vectorize else jax.lax.map(one, members)

    return _compiled(predict)


def make_eval_step(
    model: nn.Module,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    threshold: float,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """`step(variables, images, masks) -> (losses [b], counts [b 3])`, compiled.

    Counts are `overlap.count` at the network's size, of the soft mask cut at a half.
    `sharding` is that of both.
    """

    def step(variables: Variables, images: jax.Array, masks: jax.Array):
        logits = model.apply(variables, images, train=False)
        predicted = jax.nn.sigmoid(logits) > threshold
        return loss(logits, masks), overlap.count(predicted, masks >= 0.5)

    return _compiled(step, out_shardings=sharding)


def make_precise_batch_stats(
    model: nn.Module, *, sharding: jax.sharding.Sharding | None = None
) -> Callable:
    """`estimate(variables, images [n h w c], batches [k b]) -> batch_stats`, compiled.

    The running averages lag behind the weights and have seen them change; here the same
    weights see k batches of a training set. Means and second moments are averaged over
    the batches, which gives the variance of the whole population.

    Source: Wu & Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3
    (PreciseBN).
    """
    # With momentum 0 the "running" statistics after a batch are those of the batch.
    model = model.clone(bn_momentum=0.0)

    def estimate(variables: Variables, images: jax.Array, batches: jax.Array):
        def moments(indices):
            _, updated = model.apply(
                variables, images[indices], train=True, mutable=["batch_stats"]
            )
            return _map_norms(_to_second_moment, updated["batch_stats"])

        averaged = jax.tree.map(lambda a: a.mean(0), jax.lax.map(moments, batches))
        return _map_norms(_to_variance, averaged)

    return _compiled(estimate, out_shardings=sharding)


def _compiled(function: Callable, **options) -> Callable:
    """`jax.jit`, with our options on the CPU."""
    if jax.default_backend() == "cpu":
        options["compiler_options"] = _cpu_options()
    return jax.jit(function, **options)


@functools.cache
def _cpu_options() -> dict[str, Any]:
    """What makes XLA's CPU backend faster; nothing where it does not know the words."""
    options = {
        # Fewer of LLVM's passes: a sixth less to compile, and as fast a step, which
        # spends its time in convolutions and products that come compiled.
        "xla_backend_optimization_level": 1,
        # YNNPACK for reductions and products, not for convolutions: it runs many of them
        # on one core (jaxlib 0.10). With them a step takes 1.1 (inception) and 1.4 times
        # (conv) as long (`benchmarks/formulations.py --size 256`).
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        ),
    }
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def _map_norms(fn, stats):
    """Applies `fn` to the {"mean", "var"} of every norm in a tree."""
    if "mean" in stats:
        return fn(stats)
    return {name: _map_norms(fn, child) for name, child in stats.items()}


def _to_second_moment(norm):
    return {"mean": norm["mean"], "var": norm["var"] + norm["mean"] ** 2}


def _to_variance(norm):
    return {"mean": norm["mean"], "var": norm["var"] - norm["mean"] ** 2}
