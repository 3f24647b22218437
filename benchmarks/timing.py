"""Timing of a function in this process."""

import statistics
import time


def median_seconds(call, rounds: int) -> float:
    """Return the median time of `rounds` calls, after one that is not timed."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
