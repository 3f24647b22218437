"""Work that the processes of a job share: each does a part, and all learn the results.

A single process does everything, and nothing is exchanged. JAX is imported when it is
needed: `lungseg compare` starts without it.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def own_share(items: Sequence) -> Sequence:
    """Return this process's share: every n-th item, for n processes."""
    index, count = _rank_and_count()
    return items[index::count]


def all_gather(value: Any) -> list:
    """Return the values of all processes, which must all call this.

    Args:
      value: anything that JSON can hold, of any size; it comes back as JSON has it.
    """
    if _rank_and_count()[1] == 1:
        return [value]
    from jax.experimental import multihost_utils

    sent = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(sent)))
    padded = np.pad(sent, (0, int(sizes.max()) - len(sent)))
    received = multihost_utils.process_allgather(padded)
    return [
        json.loads(row[:size].tobytes())
        for row, size in zip(received, sizes, strict=True)
    ]


def interleave(parts: Sequence[Sequence]) -> list:
    """Return results in the order of the items, from those for the share of each."""
    missing = object()
    rounds = itertools.zip_longest(*parts, fillvalue=missing)
    return [result for row in rounds for result in row if result is not missing]


def all_sum(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of arrays over all processes, which must all call this."""
    if _rank_and_count()[1] == 1:
        return dict(arrays)
    parts = all_gather(
        {name: np.asarray(array).tolist() for name, array in arrays.items()}
    )
    return {name: sum(np.array(part[name]) for part in parts) for name in arrays}


def _rank_and_count() -> tuple[int, int]:
    """Return the index of this process, and how many there are."""
    import jax

    return jax.process_index(), jax.process_count()
