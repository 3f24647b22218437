"""The slices of each batch, as a function of (seed, step) and nothing else."""

import functools

import numpy as np


@functools.lru_cache(maxsize=4)  # two epochs of two sets: a batch may be of both
def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `n` slices in an epoch, a read-only permutation `[n]`."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    order.flags.writeable = False
    return order


def batch_indices(step: int, *, n: int, batch_size: int, seed: int) -> np.ndarray:
    """Return the slices of the batch at update `step`, `[batch_size]`.

    Epochs follow each other without a gap: a batch may end one epoch and start the next,
    so each slice occurs once per epoch even if the batch size does not divide `n`.
    """
    positions = step * batch_size + np.arange(batch_size)
    epochs = positions // n
    order = {e: epoch_order(n, seed=seed, epoch=int(e)) for e in np.unique(epochs)}
    return np.array([order[e][p % n] for e, p in zip(epochs, positions, strict=True)])


def mixed_batch_indices(
    step: int,
    *,
    n: int,
    extra: int,
    share: float,
    batch_size: int,
    seed: int,
    devices: int = 1,
) -> np.ndarray:
    """Return the batch of an update that draws from two sets, `[batch_size]`.

    Args:
      step: updates so far.
      n: slices of the first set, with the indices 0 to n - 1.
      extra: slices of the second set, with the indices from n on; may be 0.
      share: of the second set in every batch, whatever the sizes of the sets. Both sets
        have at least one slice in it.
      batch_size: at least 2 with a second set.
      seed: of the order.
      devices: if more than one, each of as many equal parts of the batch has its share of
        the second set, or as nearly as whole slices can.
    """
    if not extra:
        return batch_indices(step, n=n, batch_size=batch_size, seed=seed)
    second = min(max(round(batch_size * share), 1), batch_size - 1)
    batch = np.concatenate(
        [
            batch_indices(step, n=n, batch_size=batch_size - second, seed=seed),
            n + batch_indices(step, n=extra, batch_size=second, seed=seed),
        ]
    )
    # Dealt like cards; the order of a single device is that of version 0.1.
    return np.concatenate([batch[k::devices] for k in range(devices)])


def whole_batches(n: int, batch_size: int, *, seed: int) -> np.ndarray:
    """Return the full batches of the first epoch, `[n // batch_size, batch_size]`."""
    n_full = n // batch_size * batch_size
    return epoch_order(n, seed=seed, epoch=0)[:n_full].reshape(-1, batch_size)
