"""Names of chips and shapes; the compilers themselves are not needed."""

import importlib.util

import pytest

from lungseg_jax.runtime.ahead_of_time.chips import CHIPS
from lungseg_jax.runtime.ahead_of_time.topologies import (
    Topology,
    devices_of,
    parse_topology,
)
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "text,topology",
    [
        ("cpu", Topology("cpu", (1,))),
        ("cpu:8", Topology("cpu", (8,))),
        ("h100:8", Topology("h100", (8,))),
        ("v5e", Topology("v5e", (1,))),
        ("v5e:4x4", Topology("v5e", (4, 4))),
        ("v5p:2x2x1", Topology("v5p", (2, 2, 1))),
    ],
)
def test_parses_chips_and_shapes(text, topology):
    assert parse_topology(text) == topology
    assert parse_topology(str(topology)) == topology


@pytest.mark.parametrize(
    "text", ["", "v7", "v5e:", "v5e:4", "v5e:0x4", "h100:2x4", "cpu:0", "cpu:eight"]
)
def test_refuses_others(text):
    with pytest.raises(UserError, match="--topology="):
        parse_topology(text)


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
