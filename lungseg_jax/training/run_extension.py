"""Extensions: a finished run may be made longer if its steps stay what they were."""

import contextlib

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.training.config import snapshot_steps
from lungseg_jax.training.knobs import flat
from lungseg_jax.training.run import Run
from lungseg_jax.training.schedules import make_schedule

LENGTH = ("schedule.cycles", "train.total_steps")
NEW_FOLDER = "give this run a folder of its own with --workdir=DIR."


def require_same_beginning(run: Run, config: ConfigDict, changed: list[str]) -> None:
    """Check that the finished steps are also steps of the longer run.

    Args:
      run: as it is.
      config: the configuration asked for.
      changed: `config.differences` of the two.

    Raises:
      UserError: they are not, or more than the length has changed.
    """
    before, done = run.config, max(run.saved_steps, default=0)
    other = [row for row in changed if row.split(":")[0] not in LENGTH]
    if other:
        raise UserError(
            f"--extend cannot change other settings:\n{bullet_list(other)}",
            rule=f"only {' and '.join(LENGTH)} make a run longer.",
            remedy=NEW_FOLDER,
        )
    if config.train.total_steps < done:
        raise UserError(
            f"train.total_steps={config.train.total_steps}: {done} steps are done.",
            rule="a run can only be made longer.",
            remedy=f"continue it with {_length_options(before)}, or {NEW_FOLDER}"
            if not before.train.batch_per_device  # whose steps are scaled
            else NEW_FOLDER,
        )
    passed = [{s for s in snapshot_steps(c) if s <= done} for c in (before, config)]
    steps = np.arange(done)
    rates = [
        jax.vmap(make_schedule(total_steps=c.train.total_steps, **c.schedule))(steps)
        for c in (before, config)
    ]
    if passed[0] != passed[1] or not np.allclose(*rates, rtol=1e-5, atol=0):
        raise UserError(
            f"--extend: {', '.join(changed)} would change the learning rates or the "
            "snapshots of steps that are done.",
            rule="a run is extended by complete cycles: it has "
            f"{before.schedule.cycles} in {before.train.total_steps} steps, each "
            f"{before.schedule.growth:g} times as long as the previous one.",
            remedy=_remedy_of_length(before, config.schedule.cycles),
        )


def _remedy_of_length(before: ConfigDict, cycles: int) -> str:
    """Name the steps that extend a run to this number of cycles, or to one more."""
    both = "set both config.schedule.cycles and config.train.total_steps."
    if before.train.batch_per_device:  # the options are scaled
        return both
    longer = before.copy_and_resolve_references()
    longer.schedule.cycles = max(cycles, before.schedule.cycles + 1)
    ends = snapshot_steps(before)
    with contextlib.suppress(OverflowError, ValueError):  # no step, or too many
        first, total = (
            sum(before.schedule.growth**i for i in range(n))
            for n in (before.schedule.cycles, longer.schedule.cycles)
        )
        nearest = round(before.train.total_steps * total / first)
        for off in (0, -1, 1, -2, 2):
            longer.train.total_steps = nearest + off
            if snapshot_steps(longer)[: len(ends)] == ends:
                return f"{_length_options(longer)}."
    return both


def _length_options(c: ConfigDict) -> str:
    """Return the options of LENGTH, as for a command."""
    values = flat(c.to_dict())
    return " ".join(f"--config.{name}={values[name]}" for name in LENGTH)
