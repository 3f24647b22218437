"""Adam, AdamW and Muon behind one signature."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

END = "end_"  # begins the names of stacks of the first and last kernels


def make_optimizer(
    schedule: optax.Schedule,
    *,
    name: str,
    weight_decay: float,
    epsilon: float,
    clip_norm: float,
    muon_hidden_only: bool,
    image_channels: int = 1,
) -> optax.GradientTransformation:
    """Create an optimizer.

    Args:
      schedule: learning rate by step.
      name: a key of OPTIMIZERS. "muon" updates each kernel by its orthogonalized momentum,
        scaled to the root mean square of an Adam update, and all other parameters as
        NAdam does (Jordan et al. 2024; Liu et al., arXiv:2502.16982).
      weight_decay: decoupled (Loshchilov & Hutter, arXiv:1711.05101): each update takes
        away rate x weight_decay of the parameters, with "muon" of the kernels that it
        orthogonalizes. Unused by "adam".
      epsilon: added to the square root of Adam's second moment; with "muon", also to the
        norm of a momentum.
      clip_norm: largest global norm of the gradient; 0 disables clipping.
      muon_hidden_only: update the kernels that see the image, and the head, as NAdam does,
        which Jordan et al. recommend. Most of these have a single row or column here, for
        which an orthogonalized update is a step of constant length.
      image_channels: channels of the image, which tell the kernels that see it.
    """
    tx = OPTIMIZERS[name](schedule, eps=epsilon, weight_decay=weight_decay)
    tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx
    has_ends = name == "muon" and muon_hidden_only
    return _by_shape(tx, partial(_is_end, image_channels) if has_ends else _no_end)


def _by_shape(
    tx: optax.GradientTransformation, is_end: Callable[[str, jax.Array], bool]
) -> optax.GradientTransformation:
    """Apply `tx` to parameters stacked by shape, as {"3x3x8x8": `[n 3 3 8 8]`}.

    The updates are the same, with a quarter of the operations, which are faster to trace,
    to compile and to load: the inception U-Net has 162 parameters of 30 shapes. An
    optimizer that scales updates by the norm of each parameter, such as LAMB, would take
    that of the stack. The ends have stacks of their own, as {"end_3x3x64x1":
    `[n 3 3 64 1]`}.
    """

    def key(path, leaf) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = "x".join(map(str, leaf.shape))
        return END + shape if is_end(name, leaf) else shape

    def stack(tree):
        stacks = defaultdict(list)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            stacks[key(path, leaf)].append(leaf)
        return {name: jnp.stack(leaves) for name, leaves in stacks.items()}

    def init(params):
        return tx.init(stack(params))

    def update(gradients, state, params=None):
        updates, state = tx.update(stack(gradients), state, stack(params))
        updates = {
            name: iter(jnp.unstack(stacked)) for name, stacked in updates.items()
        }
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: next(updates[key(path, leaf)]), gradients
        ), state

    return optax.GradientTransformation(init, update)


def _is_end(image_channels: int, name: str, leaf: jax.Array) -> bool:
    """Whether a parameter is a kernel `[k k i o]` of the head, or one that sees the image.

    In a first level of as few filters as the image has channels, hidden kernels of this
    input size count as well.
    """
    if leaf.ndim != 4:
        return False
    sees_image = name.startswith("down_1/") and leaf.shape[2] == image_channels
    return sees_image or name.startswith("head/")


def _no_end(name: str, leaf: jax.Array) -> bool:
    return False


def _matrices(stacks):
    """Tell Muon which parameters are matrices: kernels `[n k k i o]`, as n `[k*k*i o]`."""
    kernels = MuonDimensionNumbers((1, 2, 3), 4)

    def numbers(path, leaf):
        is_end = path[0].key.startswith(END)
        return kernels if leaf.ndim == 5 and not is_end else None

    return jax.tree_util.tree_map_with_path(numbers, stacks)


def _adam(schedule, *, eps, weight_decay):
    del weight_decay
    return optax.adam(schedule, eps=eps)


# Called as `make(schedule, eps=, weight_decay=)`.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": optax.adamw,
    "muon": partial(muon, consistent_rms=0.2, muon_weight_dimension_numbers=_matrices),
}
