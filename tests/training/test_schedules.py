"""Learning rates by step, and the ends of cycles."""

import math
import time

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg_jax.training.schedules import (
    constant,
    cosine_restarts,
    cycle_ends,
    hold_schedule,
)


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_cosine_by_hand():
    """Two cycles of 4 from 1 to 0: (1 + cos(pi t/4))/2."""
    schedule = cosine_restarts(total_steps=8, cycles=2, peak=1.0)
    cycle = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    np.testing.assert_allclose(rates(schedule, range(8)), cycle * 2, atol=1e-6)


def test_floor_by_hand():
    """One cycle of 2 from 1 to 0.2: 0.6 in the middle, then the floor."""
    schedule = cosine_restarts(total_steps=2, cycles=1, peak=1.0, floor=0.2)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2, 9]), [1, 0.6, 0.2, 0.2])


def test_only_the_first_cycle_warms_up():
    """Cycles of 6: two steps of warm-up and a cosine over 4; then a cosine over 6."""
    schedule = cosine_restarts(total_steps=12, cycles=2, peak=1.0, warmup_steps=2)
    root = math.sqrt(0.5)
    expected = [0.0, 0.5, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2]
    expected += [(1 + math.cos(math.pi * t / 6)) / 2 for t in range(6)]
    np.testing.assert_allclose(rates(schedule, range(12)), expected, atol=1e-6)


def test_peak_decay_lowers_each_peak():
    """Cycles of 4 and 2 from 1 and 0.5 to 0.1."""
    schedule = cosine_restarts(
        total_steps=6, cycles=2, peak=1.0, growth=0.5, peak_decay=0.5, floor=0.1
    )
    root = math.sqrt(0.5)
    first = [0.1 + 0.9 * (1 + x) / 2 for x in (1, root, 0, -root)]
    np.testing.assert_allclose(rates(schedule, range(6)), [*first, 0.5, 0.3], atol=1e-6)


@pytest.mark.parametrize("total,cycles", [(30, 3), (8, 1), (64, 8)])
def test_equal_cycles_match_optax_sgdr(total, cycles):
    length = total // cycles
    sgdr = optax.sgdr_schedule(
        [
            {
                "init_value": 0.0,
                "peak_value": 2e-3,
                "decay_steps": length,
                "warmup_steps": 0,
                "end_value": 1e-5,
            }
        ]
        * cycles
    )
    ours = cosine_restarts(total_steps=total, cycles=cycles, peak=2e-3, floor=1e-5)
    steps = range(total)
    np.testing.assert_allclose(rates(ours, steps), rates(sgdr, steps), rtol=1e-5)


@pytest.mark.parametrize(
    "total,cycles,growth,expected",
    [
        (600, 3, 1.0, (200, 400, 600)),
        (48_000, 8, 1.0, tuple(range(6000, 48_001, 6000))),  # the notebook's
        (10, 3, 1.0, (3, 7, 10)),  # 3.33, 6.67
        (3, 3, 1.0, (1, 2, 3)),
        (5, 1, 1.0, (5,)),
        (70, 3, 2.0, (10, 30, 70)),  # 10 + 20 + 40
        (70, 3, 0.5, (40, 60, 70)),  # 40 + 20 + 10
        (100, 2, 3.0, (25, 100)),
        (100, 3, 2.0, (14, 43, 100)),  # 14.29, 42.86
    ],
)
def test_cycle_ends_by_hand(total, cycles, growth, expected):
    assert cycle_ends(total_steps=total, cycles=cycles, growth=growth) == expected


@given(
    total=st.integers(1, 100_000),
    cycles=st.integers(1, 30),
    growth=st.floats(0.3, 3.0),
)
def test_there_are_as_many_ends_as_cycles_or_an_error(total, cycles, growth):
    shares = [growth**i for i in range(cycles)]
    shortest = total * min(shares) / sum(shares)
    try:
        ends = cycle_ends(total_steps=total, cycles=cycles, growth=growth)
    except ValueError:
        assert shortest < 1.001  # rounding takes at most one step from a cycle
        return
    assert len(ends) == cycles and ends[-1] == total and ends[0] >= 1
    assert all(a < b for a, b in zip(ends, ends[1:], strict=False))
    # Each is within half a step of its share.
    for i, end in enumerate(ends, start=1):
        assert abs(end - total * sum(shares[:i]) / sum(shares)) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    "total,cycles,growth,warmup",
    [(30, 3, 1.0, 0), (31, 4, 1.0, 0), (50, 3, 2.0, 0), (50, 3, 0.5, 5), (9, 3, 1, 1)],
)
def test_a_snapshot_is_due_at_the_lowest_rate(total, cycles, growth, warmup):
    peak = 1e-2
    schedule = cosine_restarts(
        total_steps=total,
        cycles=cycles,
        peak=peak,
        growth=growth,
        warmup_steps=warmup,
        floor=1e-4,
    )
    ends = cycle_ends(total_steps=total, cycles=cycles, growth=growth)
    starts = (warmup, *ends[:-1])
    for start, end in zip(starts, ends, strict=True):
        cycle = rates(schedule, range(start, end))
        assert cycle.argmin() == end - 1 - start
        assert cycle[0] == pytest.approx(peak) and cycle.argmax() == 0
    for end in ends[:-1]:  # `end` updates are done; the next one restarts
        assert float(schedule(end)) == pytest.approx(peak)


@pytest.mark.parametrize(
    "keywords,message",
    [
        ({"total_steps": 2, "cycles": 3}, "total_steps=2 over cycles=3"),
        ({"total_steps": 10, "cycles": 5, "growth": 9.0}, "growth=9.0 leaves a cycle"),
        ({"total_steps": 10, "cycles": 0}, "cycles=0"),
        ({"total_steps": 10, "cycles": 2, "growth": 0.0}, "growth=0.0 must be pos"),
        ({"total_steps": 10, "cycles": 2, "growth": -1.0}, "growth=-1.0 must be pos"),
        ({"total_steps": 0, "cycles": 1}, "total_steps=0"),
    ],
)
def test_refuses_a_cycle_without_a_step(keywords, message):
    with pytest.raises(ValueError, match=message):
        cycle_ends(**keywords)
    with pytest.raises(ValueError, match=message):
        cosine_restarts(**keywords, peak=1.0)


@pytest.mark.parametrize("cycles,growth", [(170, 67.0), (169, 66.0), (10_000, 100.0)])
def test_refuses_growth_that_overflows(cycles, growth):
    with pytest.raises(ValueError, match="without a step"):
        cycle_ends(total_steps=10**9, cycles=cycles, growth=growth)


def test_many_cycles_are_fast():
    """10,000 are allowed; summing all shares for each of them would take seconds."""
    before = time.process_time()
    assert len(cycle_ends(total_steps=10**6, cycles=10_000)) == 10_000
    assert time.process_time() - before < 0.2


@pytest.mark.parametrize("warmup", [5, 6, 10])
def test_refuses_a_warm_up_that_fills_the_first_cycle(warmup):
    with pytest.raises(ValueError, match=f"warmup_steps={warmup} must be below .* 5"):
        cosine_restarts(total_steps=10, cycles=2, peak=1.0, warmup_steps=warmup)


def test_a_constant_rate_can_be_warmed_up():
    schedule = constant(peak=0.5, warmup_steps=4)
    np.testing.assert_allclose(
        rates(schedule, range(7)), [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    )


def test_constant_ignores_the_shape_of_a_cosine():
    schedule = constant(peak=0.25, total_steps=9, cycles=3, growth=2.0)
    assert set(rates(schedule, range(12))) == {0.25}


def test_a_held_schedule_changes_only_every_few_steps():
    schedule = hold_schedule(lambda step: 100 - step, 3)
    assert [schedule(step) for step in range(8)] == [100] * 3 + [97] * 3 + [94] * 2
