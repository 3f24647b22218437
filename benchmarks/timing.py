"""The time of a call in this process."""

import statistics
import time


def median_seconds(call, rounds: int) -> float:
    """Median of `rounds` calls; one that is not timed goes before them."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
