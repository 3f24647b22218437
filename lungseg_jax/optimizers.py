"""Adam, AdamW and Muon behind one signature."""

import jax
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
    """The optimizer that follows `schedule`.

    Args:
      schedule: learning rate by step.
      name: one of OPTIMIZERS. "muon" moves each kernel along its momentum made
        orthogonal, with the root mean square of Adam's moves, and all else as AdamW
        does (Jordan et al. 2024; Liu et al., arXiv:2502.16982).
      weight_decay: decoupled (Loshchilov & Hutter, arXiv:1711.05101); adam has none.
      epsilon: added to the root of the second moment.
      clip_norm: largest global norm of the gradient; 0 clips nothing.
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
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx


def _kernels(params):
    """Which parameters are matrices for Muon: kernels `[k k i o]`, as `[k*k*i o]`."""

    def numbers(leaf):
        return MuonDimensionNumbers((0, 1, 2), 3) if leaf.ndim == 4 else None

    return jax.tree.map(numbers, params)
