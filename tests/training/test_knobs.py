"""The table of knobs: consistent in itself, and the source of help and documentation."""

import pytest

from lungseg_jax.training.config import check_config, default_config
from lungseg_jax.training.knob import from_json, to_json
from lungseg_jax.training.knobs import all_knobs, flat, knob_table, nested


def test_names_are_unique_and_defaults_are_allowed():
    names = [knob.name for knob in all_knobs()]
    assert len(names) == len(set(names))
    check_config(default_config())
    for knob in all_knobs():
        assert knob.meaning, knob.name
        assert not (knob.range and knob.choices), knob.name


def test_the_help_of_a_knob_is_a_line():
    lines = [knob.help for knob in all_knobs()]
    for knob, line in zip(all_knobs(), lines, strict=True):
        assert line.startswith(f"  --config.{knob.name}=") and knob.meaning in line
        assert all(choice in line for choice in knob.choices)
    assert "  --config.train.batch_size=8: slices per update, over all devices" in lines
    assert any(
        line.startswith("  --config.data.window_hu=-1000.0,400.0:") for line in lines
    )


def test_knobs_from_json_have_the_same_rules_and_help():
    for read, knob in zip(from_json(to_json(all_knobs())), all_knobs(), strict=True):
        assert (read.name, read.default) == (knob.name, knob.default)
        assert type(read.default) is type(knob.default)
        assert (read.rule, read.help) == (knob.rule, knob.help)
        assert read.range == knob.range


def test_knob_table_has_a_row_for_each_knob():
    head, rule, *rows = knob_table().splitlines()
    assert head == "| knob | meaning | default | allowed |" and rule.count("---") == 4
    assert len(rows) == len(all_knobs())
    assert rows[1].startswith("| `seed` | seed of weights")
    assert rows[1].endswith("| `0` | 0 to 2147483647 |")
    assert all(row.startswith("| `") and row.count(" | ") == 3 for row in rows)


def test_flat_and_nested_are_inverse():
    values = {"name": "x", "train.loss": "bce", "train.total_steps": 3}
    c = nested(values)
    assert c.train.total_steps == 3 and flat(c.to_dict()) == values
    assert flat({"window": (0, 1)}) == {"window": [0, 1]}  # as in JSON
    with pytest.raises(AttributeError):
        c.train.misspelt = 1
