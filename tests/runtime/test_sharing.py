"""What the processes of a job share."""

import numpy as np
import pytest

from lungseg_jax.runtime import sharing


def test_a_single_process_does_everything():
    items = [3, 1, 2]
    assert sharing.own_share(items) == items
    assert sharing.all_gather({"a": items}) == [{"a": items}]
    assert sharing.interleave(sharing.all_gather(items)) == items
    assert sharing.all_sum({"n": 2}) == {"n": 2}


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
def test_shares_are_everything_in_its_order(as_processes, n):
    def work():
        return sharing.interleave(
            sharing.all_gather([i**2 for i in sharing.own_share(range(n))])
        )

    assert as_processes(3, work) == 3 * [[i**2 for i in range(n)]]


def test_values_of_any_size_come_back(as_processes):
    def work():
        (index,) = sharing.own_share([0, 1, 2])
        return sharing.all_gather({"é": index * [0.1], "none": None})

    expected = [{"é": index * [0.1], "none": None} for index in range(3)]
    assert as_processes(3, work) == 3 * [expected]


def test_arrays_are_added(as_processes):
    def work():
        (index,) = sharing.own_share([1, 2])
        return sharing.all_sum(
            {"a": np.full((2, 3), index), "b": 0 if index == 1 else [5]}
        )

    for sums in as_processes(2, work):
        np.testing.assert_array_equal(sums["a"], np.full((2, 3), 3))
        np.testing.assert_array_equal(sums["b"], [5])
