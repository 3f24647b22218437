"""Weight averaging: one network with the mean weights of all snapshots.

It costs as much as one member. Its batch statistics, if it has batch norm, are
re-estimated over the training split, because no snapshot has those of the mean weights.
Source: Izmailov, Podoprikhin,
Garipov, Vetrov & Wilson, Averaging weights leads to wider optima and better
generalization, UAI 2018, arXiv:1803.05407, section 3.2.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from lungseg_jax.data.preprocessing import to_unit
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.models import make_model
from lungseg_jax.training.batch_stats import make_precise_batch_stats, pool_batch_stats


def average_members(
    trained: TrainedEnsemble, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Any:
    """Return variables with the mean parameters of all members.

    Args:
      trained: the members.
      parts: of the training split at the network's size, images `[n s s c]` and the batches
        `[k b]` whose statistics are averaged; see `pool_batch_stats`.
    """
    mean = jax.tree.map(_mean, *trained.members.values())
    if "batch_stats" not in mean:
        return mean
    # The estimate depends on the weights only: it may start from any statistics.
    estimate = make_precise_batch_stats(
        make_model(**trained.model),
        normalize=functools.partial(to_unit, **trained.preprocessing),
    )
    stats = pool_batch_stats(estimate, mean, parts)
    return mean | {"batch_stats": jax.device_get(stats)}


def _mean(*leaves) -> np.ndarray:
    return np.mean([np.asarray(leaf) for leaf in leaves], axis=0, dtype=np.float32)
