"""Segmentation losses: logits in, one loss per image out.

Every loss takes logits `[b h w]` and masks `[b h w]` in [0, 1] (soft masks are fine) and
returns `[b]` in float32, whatever the dtype of the logits.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

MEDIAN_STEP = 0.05  # twenty steps follow losses that fall by a factor of e

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def bce(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Binary cross-entropy, averaged over the pixels of each image."""
    pixels = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), masks)
    return pixels.mean(axis=(1, 2))


def soft_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """One minus the soft Dice coefficient: 1 - (2 sum(pt) + 1) / (sum(p) + sum(t) + 1).

    The added ones keep the loss and its gradient finite where neither side has
    foreground: an empty mask with an empty prediction costs 0. With soft masks the
    minimum is not 0. It is reached at the mask binarized at half of the best coefficient,
    which is near 0.5 where few pixels are soft.

    Source: Milletari et al., V-Net, arXiv:1606.04797, without their squares; smoothed.
    """
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    overlap = (p * masks).sum(axis=(1, 2))
    total = p.sum(axis=(1, 2)) + masks.sum(axis=(1, 2))
    return 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def bce_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """The sum of `bce` and `soft_dice`."""
    return bce(logits, masks) + soft_dice(logits, masks)


def damp_outliers(losses: jax.Array, knee: float | jax.Array) -> jax.Array:
    """Leave losses `[b]` up to `knee` unchanged; above, return knee (1 + log(loss / knee)).

    An image whose loss exceeds the knee has its gradient scaled by knee / loss: a slice
    with a wrong label, whose loss stays high, does not outweigh all the others. The number
    0 disables damping; a knee that is an array is positive.

    Source: the weights min(1, k / |r|) are those of Huber, Robust Estimation of a
    Location Parameter, 1964; here r is the loss of an image.
    """
    if isinstance(knee, float | int) and not knee:
        return losses
    return jnp.where(
        losses > knee, knee * (1 + jnp.log(jnp.maximum(losses, knee) / knee)), losses
    )


def track_median(median: jax.Array, losses: jax.Array) -> jax.Array:
    """Move a running median of positive losses towards that of new losses `[b]`.

    It rises by MEDIAN_STEP times the share of losses above it minus the share below, as a
    fraction of itself, and rests where both are equal. It needs no memory of the past, and
    a loss of any size moves it by the same step. The first losses set it; 0 means that
    there were none. Losses of a batch that is split across devices have one median.

    Source: the stochastic approximation of quantiles, Robbins & Monro, Annals of
    Mathematical Statistics 22, 1951; here of the logarithm of the loss.
    """
    balance = jnp.sign(losses - median).mean()
    moved = median * jnp.exp(MEDIAN_STEP * balance)
    return jnp.where(median > 0, moved, jnp.median(losses))


LOSSES: dict[str, Loss] = {"bce": bce, "soft_dice": soft_dice, "bce_dice": bce_dice}
