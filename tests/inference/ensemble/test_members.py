"""Who is in the ensemble, against exhaustive search."""

import itertools

import numpy as np
import pytest

from lungseg_jax.inference.ensemble.members import (
    AVERAGE,
    EVERY,
    Contest,
    select_members,
)
from lungseg_jax.runtime.errors import UserError

SNAPSHOTS = ["10", "20", "30"]
TUNED = {"best": ["20"], "greedy": ["20", "30"], AVERAGE: [AVERAGE]}


@pytest.mark.parametrize(
    "choice,expected",
    [
        ("all", SNAPSHOTS),
        ("last", ["30"]),
        ("best", ["20"]),
        ("greedy", ["20", "30"]),
        (AVERAGE, [AVERAGE]),
        (EVERY, [*SNAPSHOTS, AVERAGE]),
        ("30, 10", ["10", "30"]),
        ("20", ["20"]),
    ],
)
def test_select_members(choice, expected):
    assert select_members(choice, snapshots=SNAPSHOTS, tuned=TUNED) == expected


@pytest.mark.parametrize("choice", ["11", "10,x", "", "worst", "average,10"])
def test_unknown_members_are_refused(choice):
    with pytest.raises(UserError, match="no snapshot of this run"):
        select_members(choice, snapshots=SNAPSHOTS, tuned=TUNED)


@pytest.mark.parametrize("choice", ["best", "greedy", AVERAGE])
def test_what_was_not_decided_cannot_be_chosen(choice):
    with pytest.raises(UserError, match="validation"):
        select_members(choice, snapshots=SNAPSHOTS, tuned={})


def test_any_choice_needs_a_snapshot():
    with pytest.raises(UserError, match="no snapshot yet"):
        select_members("all", snapshots=[], tuned={})


def noisy_members(rng, truth, noises):
    """Probabilities `[m h w]` around the truth."""
    around = np.where(truth, 0.75, 0.25)
    rows = [around + noise * rng.normal(size=truth.shape) for noise in noises]
    return np.clip(rows, 0, 1).astype(np.float32)


def direct_iou(slices, rows, threshold=0.5):
    """Pooled IoU of the mean of some members, from all pixels."""
    predicted = [m[rows].mean(axis=0) > threshold for m, _ in slices]
    both = sum((p & t).sum() for p, (_, t) in zip(predicted, slices, strict=True))
    either = sum((p | t).sum() for p, (_, t) in zip(predicted, slices, strict=True))
    return both / either


@pytest.fixture
def slices():
    rng = np.random.default_rng(0)
    truths = [rng.random((24, 20)) < share for share in (0.2, 0.5, 0.0)]
    return [(noisy_members(rng, t, (0.2, 0.35, 0.3)), t) for t in truths]


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_a_contest_knows_the_iou_of_every_set(slices, threshold):
    contest = Contest(SNAPSHOTS, threshold)
    for members, truth in slices:
        contest.add(members, truth)
    for size in (1, 2, 3):
        for rows in itertools.combinations(range(3), size):
            names = [SNAPSHOTS[row] for row in rows]
            expected = direct_iou(slices, list(rows), threshold)
            assert contest.iou(names) == pytest.approx(expected, abs=1e-12)


def test_greedy_adds_what_helps_and_stops(slices):
    contest = Contest(SNAPSHOTS, 0.5)
    for members, truth in slices:
        contest.add(members, truth)
    assert contest.best(SNAPSHOTS) == ["10"]  # of the least noise
    by_hand = {
        rows: direct_iou(slices, list(rows))
        for size in (1, 2, 3)
        for rows in itertools.combinations(range(3), size)
    }
    assert contest.greedy(SNAPSHOTS) == [
        SNAPSHOTS[row] for row in max(by_hand, key=by_hand.get)
    ]

    # A member that is the complement of the truth helps nobody.
    worse = Contest(["a", "b"], 0.5)
    for members, truth in slices:
        worse.add(np.stack([members[0], 1 - members[0]]), truth)
    assert worse.greedy(["a", "b"]) == ["a"]


def test_of_equals_the_later():
    contest = Contest(["a", "b"], 0.5)
    truth = np.array([[True, False]])
    contest.add(np.array([[[0.9, 0.1]], [[0.9, 0.1]]]), truth)
    assert contest.best(["a", "b"]) == ["b"] == contest.greedy(["a", "b"])


def test_nothing_is_lung():
    contest = Contest(["a", "b"], 0.5)
    contest.add(np.zeros((2, 3, 3), np.float32), np.zeros((3, 3), bool))
    assert np.isnan(contest.iou(["a"]))
    assert contest.greedy(["a", "b"]) == ["b"]
