"""Names of chips and shapes."""

import pytest

from lungseg_jax.runtime.ahead_of_time.topology_names import Topology, parse_topology
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
