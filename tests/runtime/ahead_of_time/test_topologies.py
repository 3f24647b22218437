"""Chips and their compilers, which are not needed here."""

import importlib.util

import pytest

from lungseg_jax.runtime.ahead_of_time.chips import CHIPS
from lungseg_jax.runtime.ahead_of_time.topologies import devices_of
from lungseg_jax.runtime.ahead_of_time.topology_names import parse_topology
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize("text,extra", [("v5e:4x4", "tpu"), ("h100", "gpu")])
def test_names_the_extra_that_is_missing(text, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as e:
        devices_of(parse_topology(text))
    assert f"lungseg_jax[{extra}]" in e.value.remedy


def test_every_accelerator_has_numbers_and_their_source():
    for name, chip in CHIPS.items():
        numbers = chip.memory, chip.bandwidth, chip.flops
        assert all(numbers) == (name != "cpu")
        assert chip.source.startswith("https://") == (name != "cpu")
