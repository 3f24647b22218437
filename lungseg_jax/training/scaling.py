"""How a run fits its devices: a batch for each of them, and knobs that trade memory."""

import math
from typing import Any

import jax
from ml_collections import ConfigDict

from lungseg_jax.runtime import device_mesh, progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.training.config import (
    check_config,
    differences,
    micro_batch_size,
    snapshot_steps,
)
from lungseg_jax.training.knobs import LARGE, flat

MEMORY_KNOBS = ("train.accumulate", "model.remat", "model.precision")
# Knobs that count updates, but for the warm-up.
INTERVALS = ("train.save_every", "train.validate_every", "train.log_every")
STEPS = ("schedule.hold_steps", "train.total_steps", *INTERVALS)
RATES = ("schedule.peak", "schedule.floor")
WARMUP = 0.05  # of the first cycle, at least, for a larger batch
AT_ONCE = 16  # slices


def fit_to_devices(
    c: ConfigDict, before: int | None = None
) -> tuple[ConfigDict, int | None]:
    """Scale a configuration to the devices of its run, or to those that there are.

    Args:
      c: passed `check_config`.
      before: the devices that the run was scaled to when it was started; None if it is
        new.

    Returns:
      The configuration, and the number of devices. Without `train.batch_per_device`, the
      first is `c` itself and the second None.

    Raises:
      UserError: see `scale_to_devices`.
    """
    if not c.train.batch_per_device:
        return c, None
    devices = before or jax.device_count()
    scaled = scale_to_devices(c, devices)
    changed = differences(c.to_dict(), scaled.to_dict())
    progress.say(
        f"a batch of {c.train.batch_per_device} for each of {devices} devices: "
        + (", ".join(changed) or "that of the recipe")
    )
    return scaled, devices


def scale_to_devices(c: ConfigDict, devices: int) -> ConfigDict:
    """Return the configuration for a batch of `train.batch_per_device` on each device.

    The numbers of `c` are for its own `train.batch_size`. For a batch r times as large:

    - Steps are divided by r, so that a run sees as many slices. Rates that change at every
      step still do.
    - Rates are multiplied by sqrt(r). For Adam and AdamW: Malladi et al.,
      arXiv:2205.10287, whose scaling of beta and epsilon is left out. For Muon, whose
      updates do not grow with the gradient either, the same follows as long as noise
      dominates the gradient (Su, kexue.fm/archives/11285, 2025).
    - If r > 1, the warm-up takes at least WARMUP of the first cycle, as the 5 of 90 epochs
      of Goyal et al., arXiv:1706.02677, section 2.2, which let a large rate start. Rates
      that are held for several steps get none: they would be held at 0.

    Args:
      c: passed `check_config`, with a `train.batch_per_device`.
      devices: how many share a batch.

    Raises:
      UserError: too few steps are left, or a rate is out of range.
    """
    values, scaled = flat(c.to_dict()), c.copy_and_resolve_references()
    size = c.train.batch_per_device * devices
    ratio = size / c.train.batch_size
    changes = {"train.batch_size": size, "schedule.warmup_steps": 0}
    changes |= {name: max(1, round(values[name] / ratio)) for name in STEPS}
    # LARGE means never.
    changes |= {name: min(changes[name], LARGE) for name in INTERVALS}
    if c.schedule.hold_steps == 1:
        changes["schedule.hold_steps"] = 1  # a smooth curve stays smooth
    if ratio != 1:
        changes |= {n: float(f"{values[n] * ratio**0.5:.4g}") for n in RATES}
    scaled.update_from_flattened_dict(changes)
    check_config(scaled)
    first_cycle = snapshot_steps(scaled)[0]
    is_warmed_up = ratio > 1 and scaled.schedule.hold_steps == 1
    least = math.ceil(WARMUP * first_cycle) if is_warmed_up else 0
    warmup = max(round(c.schedule.warmup_steps / ratio), least)
    scaled.schedule.warmup_steps = min(warmup, first_cycle - 1)
    return scaled


def check_batch(c: ConfigDict, *, training_slices: int, devices: int) -> None:
    """Check that a batch suits the data and the machine.

    Args:
      c: passed `check_config`.
      training_slices: size of the training split.
      devices: number of devices that share a batch.

    Raises:
      UserError: a batch cannot be filled, or divided among the devices.
    """
    size, parts = c.train.batch_size, c.train.accumulate
    if size > training_slices:
        raise UserError(
            f"train.batch_size={size} is larger than the training split.",
            rule=f"at most its {pluralize(training_slices, 'slice')}.",
            remedy=f"--config.train.batch_size={training_slices} or less."
            if not c.train.batch_per_device
            else "a smaller --config.train.batch_per_device, or fewer devices.",
        )
    if c.data.extra_phantoms and size < 2:
        raise UserError(
            f"train.batch_size={size} has no room for phantoms beside the slices.",
            rule="at least 2, with data.extra_phantoms.",
            remedy="--config.data.extra_phantoms=0, or a larger batch.",
        )
    if size % (parts * devices):
        step = parts * devices
        low = size // step * step
        near = [str(s) for s in (low, low + step) if 0 < s <= training_slices]
        times = f" {parts} times" if parts > 1 else ""
        raise UserError(
            f"train.batch_size={size} cannot be divided{times} among {devices} devices.",
            rule=f"a multiple of {step}.",
            remedy=f"try {', '.join(near)}." if near else "use fewer devices.",
        )


def batch_on_one_device(c: ConfigDict) -> int:
    """Return the slices that one device works on at once before and after the training.

    It does not depend on the number of devices, so that neither do the results. Without
    gradients, AT_ONCE slices take less memory than a few in the training.
    """
    return min(micro_batch_size(c), AT_ONCE)


def separate_norms(c: ConfigDict) -> int:
    """Return how many devices normalize their slices by themselves; 1 without."""
    if not c.model.bn_per_device:
        return 1
    return len(device_mesh.devices_for(micro_batch_size(c)))


def memory_knobs(c: ConfigDict) -> dict[str, Any]:
    """Return the values of MEMORY_KNOBS, for run.json."""
    values = flat(c.to_dict())
    return {name: values[name] for name in MEMORY_KNOBS}


def memory_remedy(c: ConfigDict) -> str:
    """Name the knobs that make an update take less memory, the gentlest first."""
    size, parts = c.train.batch_size, c.train.accumulate
    devices = len(device_mesh.devices_for(micro_batch_size(c)))
    more = [n for n in range(parts + 1, size + 1) if size % (n * devices) == 0]
    options = [f"--config.train.accumulate={more[0]}"] if more else []
    options += [] if c.model.remat else ["--config.model.remat=true"]
    is_short = c.model.dtype == "bfloat16"
    options += [] if is_short else ["--config.model.dtype=bfloat16"]
    options.append("a smaller --config.data.image_size")
    return f"{', '.join(options)}; another --workdir, as it is another run."
