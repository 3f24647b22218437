"""Views: the mirror images in which the members of an ensemble see a slice.

Each member sees another one, so that their mean is test-time augmentation at no extra cost
(docs/choices.md has the measurements).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

AS_IT_IS, LEFT_TO_RIGHT, TOP_TO_BOTTOM, BOTH = VIEWS = range(4)


def assign_views(names: Sequence[str]) -> dict[str, int]:
    """Return the view of each member.

    The last one, which is also used by itself, sees the slice as it is.

    Args:
      names: of all members, in their order.
    """
    return {name: (len(names) - i) % len(VIEWS) for i, name in enumerate(names, 1)}


def mirror(batch: jax.Array, view: jax.Array) -> jax.Array:
    """Return a view of a batch `[b h w ...]`; a second call undoes the first."""
    batch = jnp.where(view & LEFT_TO_RIGHT, jnp.flip(batch, 2), batch)
    return jnp.where(view & TOP_TO_BOTTOM, jnp.flip(batch, 1), batch)
