"""Weight averaging: one network with the mean weights of all snapshots.

It costs as much as one member. Its batch statistics, if it has batch norm, are
re-estimated over the training split, because no snapshot has those of the mean weights.
Source: Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, Averaging weights leads to wider
optima and better generalization, UAI 2018, arXiv:1803.05407, section 3.2.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.models import make_model
from lungseg_jax.runtime.sharing import own_share
from lungseg_jax.training.batch_stats import (
    make_precise_batch_stats,
    pool_batch_stats,
    pool_shares,
)


def average_members(
    trained: TrainedEnsemble,
    batches: np.ndarray,
    read: Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]],
) -> Any:
    """Return variables with the mean parameters of all members.

    Args:
      trained: the members.
      batches: `[k b]`, those of the training split whose statistics are averaged; the
        processes of a job share them.
      read: returns some of the batches in parts, images `[n s s c]` at the network's size
        and batches `[k b]` of them; see `pool_batch_stats`.
    """
    mean = jax.tree.map(_mean, *trained.members.values())
    if "batch_stats" not in mean:
        return mean
    # The estimate depends on the weights only: it may start from any statistics.
    estimate = make_precise_batch_stats(
        make_model(**trained.model),
        normalize=trained.preprocessing.to_unit,
    )
    own, stats = own_share(batches), mean["batch_stats"]
    if len(own):
        stats = jax.device_get(pool_batch_stats(estimate, mean, read(own)))
    if len(own) < len(batches):
        stats = pool_shares(stats, len(own))
    return mean | {"batch_stats": stats}


def _mean(*leaves) -> np.ndarray:
    return np.mean([np.asarray(leaf) for leaf in leaves], axis=0, dtype=np.float32)
