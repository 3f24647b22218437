"""Which slices are in which batch: a function of (seed, step) and nothing else."""

import numpy as np


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of `n` slices in an epoch, a permutation `[n]`."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def batch_indices(step: int, *, n: int, batch_size: int, seed: int) -> np.ndarray:
    """The slices of the batch that update number `step` sees, `[batch_size]`.

    Epochs follow each other without a gap: a batch may end one and begin the next, so
    each slice is seen once an epoch, also where the batch size does not divide.
    """
    positions = step * batch_size + np.arange(batch_size)
    epochs = positions // n
    order = {e: epoch_order(n, seed=seed, epoch=int(e)) for e in np.unique(epochs)}
    return np.array([order[e][p % n] for e, p in zip(epochs, positions, strict=True)])


def whole_batches(n: int, batch_size: int, *, seed: int) -> np.ndarray:
    """The whole batches of the first epoch, `[n // batch_size, batch_size]`."""
    whole = n // batch_size * batch_size
    return epoch_order(n, seed=seed, epoch=0)[:whole].reshape(-1, batch_size)
