"""The network whose weights are the mean of all snapshots': one, for the time of one.

Its batch statistics are those of no snapshot: they are estimated anew over the training
split. Source: Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, Averaging weights leads to
wider optima and better generalization, UAI 2018, arXiv:1803.05407, section 3.2.
"""

from typing import Any

import jax
import numpy as np

from lungseg_jax.data.sampling import whole_batches
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.models import make_model
from lungseg_jax.training.steps import make_precise_batch_stats


def average_members(
    trained: TrainedEnsemble, images: np.ndarray, *, batch_size: int, seed: int
) -> Any:
    """Variables with the mean parameters of all members.

    Args:
      trained: the members.
      images: of the training split, at the network's size, `[n s s c]`.
      batch_size: of the batches whose statistics are averaged.
      seed: of their order.
    """
    trees = list(trained.members.values())
    mean = jax.tree.map(_mean, *trees)
    # Any statistics do to start from: the estimate depends on the weights alone.
    estimate = make_precise_batch_stats(make_model(**trained.model))
    batches = whole_batches(len(images), batch_size, seed=seed)
    return mean | {"batch_stats": jax.device_get(estimate(mean, images, batches))}


def _mean(*leaves) -> np.ndarray:
    return np.mean([np.asarray(leaf) for leaf in leaves], axis=0, dtype=np.float32)
