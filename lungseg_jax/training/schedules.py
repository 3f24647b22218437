"""Learning-rate schedules, and the steps at which snapshots are due."""

from itertools import pairwise

import optax


def cycle_ends(
    *, total_steps: int, cycles: int, growth: float = 1.0
) -> tuple[int, ...]:
    """Return the step count at the end of each cycle; the last is `total_steps`.

    The length of cycle i is proportional to growth**i. Ends are rounded to the nearest
    step, so there are always exactly `cycles` of them.

    Raises:
      ValueError: a cycle would have no step.
    """
    if cycles < 1 or growth <= 0:
        raise ValueError(f"cycles={cycles} and growth={growth} must be positive.")
    try:
        shares = [growth**i for i in range(cycles)]
        total, done, ends = sum(shares), 0.0, []
        for share in shares:
            done += share
            ends.append(round(total_steps * done / total))
    except (OverflowError, ValueError):  # infinite shares leave the first cycle empty
        ends = [0]
    if any(stop <= start for start, stop in pairwise([0, *ends])):
        raise ValueError(
            f"total_steps={total_steps} over cycles={cycles} with growth={growth} "
            "leaves a cycle without a step."
        )
    return tuple(ends)


def cosine_restarts(
    *,
    total_steps: int,
    cycles: int,
    peak: float,
    warmup_steps: int = 0,
    growth: float = 1.0,
    peak_decay: float = 1.0,
    floor: float = 0.0,
) -> optax.Schedule:
    """Return a cosine decay from `peak` to `floor` that restarts at the end of each cycle.

    Update t of a cycle of T steps has the rate floor + (peak - floor)(1 + cos(pi t/T))/2.
    The last update of a cycle therefore has its lowest rate, and the next one restarts at
    the peak, which is `peak_decay` times the previous peak. Only the first cycle starts
    with a linear warm-up of `warmup_steps`; warm restarts do not need one.

    With `growth` and `peak_decay` below 1, a long cycle finds a good minimum, and short
    cycles at lower rates sample others around it, as in Garipov et al., arXiv:1802.10026.

    Source: Loshchilov & Hutter, SGDR, arXiv:1608.03983; used for snapshot ensembles
    by Huang et al., arXiv:1704.00109.

    Raises:
      ValueError: a cycle would have no step, or the warm-up fills the first one.
    """
    ends = cycle_ends(total_steps=total_steps, cycles=cycles, growth=growth)
    if warmup_steps >= ends[0]:
        raise ValueError(
            f"warmup_steps={warmup_steps} must be below the first cycle's {ends[0]}."
        )

    parts = []
    for i, (start, stop) in enumerate(pairwise([warmup_steps, *ends])):
        top = peak * peak_decay**i
        parts.append(optax.cosine_decay_schedule(top, stop - start, alpha=floor / top))
    boundaries = list(ends[:-1])
    if warmup_steps:
        parts.insert(0, optax.linear_schedule(0.0, peak, warmup_steps))
        boundaries.insert(0, warmup_steps)
    return optax.join_schedules(parts, boundaries)


def constant(*, peak: float, warmup_steps: int = 0, **_) -> optax.Schedule:
    """Return a rate of `peak` after a linear warm-up of `warmup_steps`.

    The other arguments of `cosine_restarts` are ignored.
    """
    if not warmup_steps:
        return optax.constant_schedule(peak)
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, optax.constant_schedule(peak)], [warmup_steps])


def make_schedule(*, name: str, hold_steps: int, **shape: float) -> optax.Schedule:
    """Create a schedule by name.

    Args:
      name: a key of SCHEDULES.
      hold_steps: the rate changes only every so many steps. The notebooks set it once per
        epoch, which is 30 steps.
      shape: keyword arguments of the schedule.

    Raises:
      ValueError: from the schedule.
    """
    return hold_schedule(SCHEDULES[name](**shape), hold_steps)


def hold_schedule(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """Return `schedule` with a rate that changes only every `steps` steps."""
    return lambda step: schedule(step // steps * steps)


SCHEDULES = {"cosine_restarts": cosine_restarts, "constant": constant}
