"""Adam and AdamW behind one signature."""

import optax

OPTIMIZERS = ("adam", "adamw")


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
      name: one of OPTIMIZERS.
      weight_decay: decoupled, of adamw alone (Loshchilov & Hutter, arXiv:1711.05101).
      epsilon: added to the root of the second moment.
      clip_norm: largest global norm of the gradient; 0 clips nothing.
    """
    if name == "adamw":
        tx = optax.adamw(schedule, eps=epsilon, weight_decay=weight_decay)
    else:
        tx = optax.adam(schedule, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx
