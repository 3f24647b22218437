"""One plain error: what, rule, remedy; several of them by kind."""

import pytest

from lungseg_jax.runtime.errors import UserError, bullet_list, combine_errors, pluralize


def test_parts_that_are_empty_are_not_printed():
    assert str(UserError("a is b.")) == "error: a is b."
    assert str(UserError("a is b.", rule="c.", remedy="d.")) == (
        "error: a is b.\nrule:  c.\nfix:   d."
    )


def test_one_fault_is_its_own_error():
    fault = UserError("a is b.", rule="c.")
    assert combine_errors([fault], "x") is fault


def test_several_stand_by_kind_each_with_its_remedy():
    faults = [
        UserError("a is cut.", rule="whole.", remedy="copy it."),
        UserError("b has 3 channels.", rule="gray."),
        UserError("c is cut.", rule="whole.", remedy="copy it."),
        UserError("d."),
    ]
    assert str(combine_errors(faults, "DIR")).splitlines() == [
        "error: 4 faults in DIR:",
        "  a is cut.",
        "  c is cut.",
        "    rule:  whole.",
        "    fix:   copy it.",
        "  b has 3 channels.",
        "    rule:  gray.",
        "  d.",
    ]


@pytest.mark.parametrize(
    "rows,most,expected",
    [
        (["x"], 2, "  x"),
        (["x", "y"], 2, "  x\n  y"),
        (["x", "y", "z"], 2, "  x\n  y\n  ... and 1 more"),
    ],
)
def test_table(rows, most, expected):
    assert bullet_list(rows, most) == expected


@pytest.mark.parametrize("n,text", [(0, "0 slices"), (1, "1 slice"), (2, "2 slices")])
def test_counted(n, text):
    assert pluralize(n, "slice") == text
