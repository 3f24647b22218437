"""Adam, AdamW and Muon behind one signature."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

OPTIMIZERS = ("adam", "adamw", "muon")


def make_optimizer(
    schedule: optax.Schedule,
    *,
    name: str,
    weight_decay: float,
    epsilon: float,
    clip_norm: float,
) -> optax.GradientTransformation:
    """Create an optimizer.

    Args:
      schedule: learning rate by step.
      name: one of OPTIMIZERS. "muon" updates each kernel by its orthogonalized momentum,
        scaled to the root mean square of an Adam update, and all other parameters as
        AdamW does (Jordan et al. 2024; Liu et al., arXiv:2502.16982).
      weight_decay: decoupled (Loshchilov & Hutter, arXiv:1711.05101); unused by "adam".
      epsilon: added to the square root of the second moment.
      clip_norm: largest global norm of the gradient; 0 disables clipping.
    """
    if name == "muon":
        tx = muon(
            schedule,
            consistent_rms=0.2,
            weight_decay=weight_decay,
            muon_weight_dimension_numbers=_kernels,
        )
    elif name == "adamw":
        tx = optax.adamw(schedule, eps=epsilon, weight_decay=weight_decay)
    else:
        tx = optax.adam(schedule, eps=epsilon)
    tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx
    return _by_shape(tx)


def _by_shape(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `tx` to parameters stacked by shape, as {"3x3x8x8": `[n 3 3 8 8]`}.

    The updates are the same, with a quarter of the operations, which are faster to trace,
    to compile and to load: the inception U-Net has 162 parameters of 30 shapes.
    """

    def init(params):
        return tx.init(_stack(params))

    def update(gradients, state, params=None):
        updates, state = tx.update(_stack(gradients), state, _stack(params))
        updates = {shape: iter(jnp.unstack(stack)) for shape, stack in updates.items()}
        return jax.tree.map(lambda leaf: next(updates[_shape(leaf)]), gradients), state

    return optax.GradientTransformation(init, update)


def _stack(tree):
    stacks = defaultdict(list)
    for leaf in jax.tree.leaves(tree):
        stacks[_shape(leaf)].append(leaf)
    return {shape: jnp.stack(leaves) for shape, leaves in stacks.items()}


def _shape(leaf) -> str:
    return "x".join(map(str, leaf.shape))


def _kernels(stacks):
    """Tell Muon which parameters are matrices: kernels `[n k k i o]`, as n `[k*k*i o]`."""

    def numbers(leaf):
        return MuonDimensionNumbers((1, 2, 3), 4) if leaf.ndim == 5 else None

    return jax.tree.map(numbers, stacks)
