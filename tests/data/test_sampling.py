"""Batches are a function of (seed, step) and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg_jax.data.sampling import (
    batch_indices,
    epoch_order,
    mixed_batch_indices,
)

# epoch_order(8, seed=0, epoch=0) and epoch=1
GOLDEN = ([2, 4, 3, 6, 5, 0, 1, 7], [1, 3, 7, 6, 0, 4, 2, 5])


def stream(steps, **keywords):
    """Return the slices of several batches, concatenated."""
    return np.concatenate([batch_indices(step, **keywords) for step in steps])


@given(
    n=st.integers(1, 40), batch_size=st.integers(1, 100), seed=st.integers(0, 2**31 - 1)
)
def test_each_epoch_has_each_slice_once(n, batch_size, seed):
    epochs = 3
    steps = -(-epochs * n // batch_size)
    indices = stream(range(steps), n=n, batch_size=batch_size, seed=seed)
    assert len(indices) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(indices[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(step=st.integers(0, 10**6), n=st.integers(1, 40), batch_size=st.integers(1, 100))
def test_a_late_batch_is_a_section_of_its_epochs(step, n, batch_size):
    """Position p of the stream is position p % n of epoch p // n, at any step."""
    batch = batch_indices(step, n=n, batch_size=batch_size, seed=7)
    assert batch.shape == (batch_size,)
    for i in (0, batch_size // 2, batch_size - 1):
        epoch, position = divmod(step * batch_size + i, n)
        assert batch[i] == epoch_order(n, seed=7, epoch=epoch)[position]


def test_batches_do_not_depend_on_earlier_calls():
    """Steps give the same batches backwards, and from the middle."""
    keywords = {"n": 10, "batch_size": 3, "seed": 0}
    forwards = [batch_indices(step, **keywords).tolist() for step in range(9)]
    np.random.seed(99)  # global state is neither read nor needed
    for step in (8, 3, 0, 5):
        assert batch_indices(step, **keywords).tolist() == forwards[step]


def test_the_order_is_pinned():
    """Another order would change how every existing run resumes."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == GOLDEN[0]
    assert epoch_order(8, seed=0, epoch=1).tolist() == GOLDEN[1]
    batch = batch_indices(2, n=8, batch_size=3, seed=0)
    assert batch.tolist() == [*GOLDEN[0][6:], GOLDEN[1][0]]


def test_epochs_and_seeds_differ():
    orders = {
        tuple(epoch_order(20, seed=seed, epoch=epoch))
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


@pytest.mark.parametrize("n,batch_size", [(20, 8), (5, 8), (1, 4)])
def test_a_batch_may_end_an_epoch_and_start_the_next(n, batch_size):
    indices = stream(range(n), n=n, batch_size=batch_size, seed=1)
    assert (np.bincount(indices, minlength=n) == batch_size).all()


def test_batches_are_integers():
    assert batch_indices(0, n=4, batch_size=2, seed=0).dtype.kind == "i"


@given(
    n=st.integers(1, 40),
    extra=st.integers(1, 40),
    batch_size=st.integers(2, 9),
    share=st.floats(0, 1),
)
def test_a_share_of_a_mixed_batch_is_of_the_second_set(n, extra, batch_size, share):
    sizes = {"n": n, "extra": extra, "batch_size": batch_size, "share": share}
    steps = 2 * n * extra
    batches = [mixed_batch_indices(s, **sizes, seed=1) for s in range(min(steps, 80))]
    for batch in batches:
        assert len(batch) == batch_size and (batch < n + extra).all()
        second = (batch >= n).sum()
        assert 0 < second < batch_size
        assert abs(second - share * batch_size) <= 1
    first = np.concatenate(batches)
    first = first[first < n][:n]
    assert len(first) < n or sorted(first) == list(range(n))


def test_each_device_has_its_share_of_the_second_set():
    sizes = {"n": 50, "extra": 9, "share": 0.25, "batch_size": 64, "seed": 0}
    batch = mixed_batch_indices(3, **sizes, devices=4)
    assert [(part >= 50).sum() for part in np.split(batch, 4)] == [4, 4, 4, 4]
    assert sorted(batch) == sorted(mixed_batch_indices(3, **sizes))


def test_both_sets_have_the_order_of_the_seed():
    sizes = {"n": 50, "extra": 9, "share": 0.25, "batch_size": 64}
    batch = mixed_batch_indices(3, **sizes, seed=1)
    first = batch_indices(3, n=50, batch_size=48, seed=1)
    second = batch_indices(3, n=9, batch_size=16, seed=1)
    assert batch.tolist() == [*first, *(50 + second)]


def test_without_a_second_set_a_mixed_batch_is_an_ordinary_one():
    ordinary = batch_indices(7, n=8, batch_size=3, seed=0)
    mixed = mixed_batch_indices(7, n=8, extra=0, share=0.5, batch_size=3, seed=0)
    np.testing.assert_array_equal(mixed, ordinary)
