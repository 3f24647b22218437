"""Batch statistics re-estimated over a training set."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from lungseg_jax.runtime.compilation import jit
from lungseg_jax.runtime.sharing import all_sum


def make_precise_batch_stats(
    model: Any,
    *,
    normalize: Callable[[jax.Array], jax.Array] = lambda images: images,
    gather: Callable[[jax.Array, jax.Array], jax.Array] = operator.getitem,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Create `estimate(variables, images [n h w c], batches [k b]) -> batch_stats`.

    The model has batch norm. Running averages lag behind the weights, which changed while
    they were accumulated. Here the same weights see k batches of a training set; means and
    second moments are averaged over the batches, which yields the variance of the whole
    population.

    Source: Wu & Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3
    (PreciseBN).

    Devices that share the examples of each batch share the work, as in training. For
    `gather` and `sharding`, see `make_train_steps`.
    """
    # With momentum 0 the "running" statistics after a batch are those of the batch.
    model = model.clone(bn_momentum=0.0)

    def estimate(variables: Mapping[str, Any], images: jax.Array, batches: jax.Array):
        def moments(indices):
            batch = normalize(gather(images, indices))
            _, updated = model.apply(
                variables, batch, train=True, mutable=["batch_stats"]
            )
            return _map_norms(_to_second_moment, updated["batch_stats"])

        averaged = jax.tree.map(lambda a: a.mean(0), jax.lax.map(moments, batches))
        return _map_norms(_to_variance, averaged)

    return jit(estimate, out_shardings=sharding)


def pool_batch_stats(
    estimate: Callable,
    variables: Mapping[str, Any],
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Any:
    """Return `estimate` over a training set of which one part is in memory at a time.

    Args:
      estimate: of `make_precise_batch_stats`.
      variables: its first argument.
      parts: its other arguments, images and batches; equally many batches in each. One part
        gives exactly its own estimate, several that of all batches to rounding.
    """
    parts = iter(parts)
    first = estimate(variables, *next(parts))
    total, n = None, 1
    for part in parts:
        if total is None:
            total = _moments_on_host(first)
        moments = _moments_on_host(estimate(variables, *part))
        total, n = jax.tree.map(np.add, total, moments), n + 1
    if total is None:
        return first
    pooled = _map_norms(_to_variance, jax.tree.map(lambda a: a / n, total))
    return jax.tree.map(
        lambda a, like: jax.device_put(a.astype(like.dtype), like.sharding),
        pooled,
        first,
    )


def pool_shares(stats: Any, n: int) -> Any:
    """Return the statistics over all batches, from those over the share of each process.

    Args:
      stats: over the share of this process; if that is empty, any statistics.
      n: batches in the share.
    """
    leaves, structure = jax.tree.flatten(_moments_on_host(stats))
    sums = all_sum({str(i): n * leaf for i, leaf in enumerate(leaves)} | {"n": n})
    means = [sums[str(i)] / sums["n"] for i in range(len(leaves))]
    pooled = _map_norms(_to_variance, jax.tree.unflatten(structure, means))
    return jax.tree.map(np.float32, pooled)


def _moments_on_host(stats):
    """Convert means and variances to means and second moments, in float64."""
    stats = jax.tree.map(lambda a: np.asarray(a, np.float64), stats)
    return _map_norms(_to_second_moment, stats)


def _map_norms(fn, stats):
    """Apply `fn` to the {"mean", "var"} of every norm in a tree."""
    if "mean" in stats:
        return fn(stats)
    return {name: _map_norms(fn, child) for name, child in stats.items()}


def _to_second_moment(norm):
    return {"mean": norm["mean"], "var": norm["var"] + norm["mean"] ** 2}


def _to_variance(norm):
    var = norm["var"] - norm["mean"] ** 2
    return {"mean": norm["mean"], "var": var * (var > 0)}  # negative by rounding
