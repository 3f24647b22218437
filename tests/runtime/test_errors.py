"""A user error states what is wrong, the rule and the remedy; several are grouped."""

import pytest

from lungseg_jax.runtime import errors
from lungseg_jax.runtime.errors import (
    UserError,
    bullet_list,
    combine_errors,
    pluralize,
    unknown_name,
)


def test_empty_parts_are_not_printed():
    assert str(UserError("a is b.")) == "error: a is b."
    assert str(UserError("a is b.", rule="c.", remedy="d.")) == (
        "error: a is b.\nrule:  c.\nfix:   d."
    )


def test_a_single_error_is_returned_unchanged():
    error = UserError("a is b.", rule="c.")
    assert combine_errors([error], "x") is error
    with_header = str(combine_errors([error], "x", always=True))
    assert with_header == "error: 1 fault in x:\n  a is b.\n    rule:  c."


def test_several_errors_are_grouped_by_rule_and_remedy():
    errors = [
        UserError("a is truncated.", rule="intact.", remedy="copy it."),
        UserError("b has 3 channels.", rule="gray."),
        UserError("c is truncated.", rule="intact.", remedy="copy it."),
        UserError("d."),
    ]
    assert str(combine_errors(errors, "DIR")).splitlines() == [
        "error: 4 faults in DIR:",
        "  a is truncated.",
        "  c is truncated.",
        "    rule:  intact.",
        "    fix:   copy it.",
        "  b has 3 channels.",
        "    rule:  gray.",
        "  d.",
    ]


def test_the_faults_of_an_input_are_indented_below_it():
    faults = [UserError("a is truncated.", rule="intact."), UserError("b is empty.")]
    of_folder = combine_errors(faults, "DIR/x")
    assert str(combine_errors([of_folder, UserError("c.")], "DIR")).splitlines() == [
        "error: 2 faults in DIR:",
        "  2 faults in DIR/x:",
        "    a is truncated.",
        "      rule:  intact.",
        "    b is empty.",
        "  c.",
    ]


def test_an_unknown_name_lists_the_known_ones():
    error = unknown_name("loss", "mse", {"bce": 1, "bce_dice": 2})
    assert (
        error.what == "unknown loss 'mse'." and error.rule == "one of: bce, bce_dice."
    )


@pytest.mark.parametrize(
    "rows,expected",
    [
        (["x"], "  x"),
        (["x", "y"], "  x\n  y"),
        (["x", "y", "z"], "  x\n  y\n  ... and 1 more"),
        (["x:\n  1\n  2", "y"], "  x:\n    1\n    2\n  y"),
    ],
)
def test_bullet_list(rows, expected, monkeypatch):
    monkeypatch.setattr(errors, "SHOWN", 2)
    assert bullet_list(rows) == expected


@pytest.mark.parametrize("n,text", [(0, "0 slices"), (1, "1 slice"), (2, "2 slices")])
def test_pluralize(n, text):
    assert pluralize(n, "slice") == text
