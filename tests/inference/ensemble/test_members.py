"""The members that a choice names."""

import pytest

from lungseg_jax.inference.ensemble.members import AVERAGE, EVERY, select_members
from lungseg_jax.runtime.errors import UserError

SNAPSHOTS = ["10", "20", "30"]
TUNED = {"all": SNAPSHOTS, "last": ["30"], AVERAGE: [AVERAGE]}


@pytest.mark.parametrize("tuned", [TUNED, {AVERAGE: [AVERAGE]}])
@pytest.mark.parametrize(
    "choice,expected",
    [
        ("all", SNAPSHOTS),
        ("last", ["30"]),
        (AVERAGE, [AVERAGE]),
        (EVERY, [*SNAPSHOTS, AVERAGE]),
        ("30, 10", ["10", "30"]),
        ("20", ["20"]),
    ],
)
def test_select_members(choice, expected, tuned):
    assert select_members(choice, snapshots=SNAPSHOTS, tuned=tuned) == expected


@pytest.mark.parametrize(
    "choice", ["11", "10,x", "", "10,", "worst", "every", "average,10"]
)
def test_refuses_unknown_members(choice):
    error = "this run has no snapshot" if choice.split(",")[-1] else "a name is empty"
    with pytest.raises(UserError, match=error):
        select_members(choice, snapshots=SNAPSHOTS, tuned=TUNED)


@pytest.mark.parametrize("choice", [20, ["10", "20"], None, b"all"])
def test_refuses_members_that_are_not_text(choice):
    with pytest.raises(UserError, match="is not text") as error:
        select_members(choice, snapshots=SNAPSHOTS, tuned=TUNED)
    assert error.value.remedy.endswith('members="30".')


@pytest.mark.parametrize("choice", ["best", "greedy"])
def test_refuses_removed_choices_even_where_an_old_run_has_them(choice):
    old = TUNED | {"best": ["20"], "greedy": ["20", "30"]}
    for tuned in ({}, TUNED, old):
        with pytest.raises(UserError, match="were removed") as error:
            select_members(choice, snapshots=SNAPSHOTS, tuned=tuned)
        assert error.value.rule == "all, last, average, or some of 10, 20, 30."
    assert select_members(EVERY, snapshots=SNAPSHOTS, tuned=old) == [
        *SNAPSHOTS,
        AVERAGE,
    ]


def test_refuses_an_average_that_was_not_made():
    with pytest.raises(UserError, match="has none") as error:
        select_members(AVERAGE, snapshots=SNAPSHOTS, tuned={})
    assert "finish the training" in error.value.remedy
    assert select_members(EVERY, snapshots=SNAPSHOTS, tuned={}) == SNAPSHOTS


def test_every_choice_needs_a_snapshot():
    with pytest.raises(UserError, match="no snapshot yet"):
        select_members("all", snapshots=[], tuned={})
