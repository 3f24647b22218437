"""Random numbers for a transform, drawn in one call: each call adds a second to compile."""

import jax
import jax.numpy as jnp

# For `fold_in`, beside a `split` of the same key: fold_in(key, i) is split(key, n)[i].
APART = 2**31


def draw(key: jax.Array, n: int) -> list[jax.Array]:
    """Draw n numbers, uniformly from 0 to 1."""
    return list(jax.random.uniform(key, (n,)))


def between(share: jax.Array, low: float, high: float) -> jax.Array:
    """Map a number in [0, 1] to [low, high]."""
    return low + (high - low) * share


def log_between(share: jax.Array, low: float, high: float) -> jax.Array:
    """Map a number in [0, 1] to [low, high], evenly in the logarithm."""
    return jnp.exp(between(share, jnp.log(low), jnp.log(high)))
