"""Chips and shapes by name, such as v5e:4x4; parsed without JAX, so errors are fast."""

import re
from typing import NamedTuple

from lungseg_jax.runtime.ahead_of_time.chips import CHIPS, Chip
from lungseg_jax.runtime.errors import UserError

EXAMPLES = "cpu, cpu:8, h100, h100:8, v5e, v5e:4x4, v5p:2x2x1, v6e:16x16"


class Topology(NamedTuple):
    """A kind of chip, and how many there are along each axis."""

    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """Parse KIND, KIND:N or KIND:AxBxC.

    Raises:
      UserError: the chip is unknown, or the shape is not one.
    """
    match = re.fullmatch(r"(\w+)(?::(\d{1,4}(?:x\d{1,4}){0,2}))?", text, re.ASCII)
    if not match or match[1] not in CHIPS:
        raise UserError(
            f"--topology={text} is not known.",
            rule=f"a chip ({', '.join(CHIPS)}), and how many, such as {EXAMPLES}.",
        )
    shape = tuple(int(n) for n in (match[2] or "1").split("x"))
    is_tpu = CHIPS[match[1]].platform == "tpu"
    if 0 in shape or (len(shape) > 1) != (is_tpu and shape != (1,)):
        raise UserError(
            f"--topology={text} is not a shape of {match[1]}.",
            rule="one chip of a TPU, or a shape such as 4x4; a number of the others.",
        )
    return Topology(match[1], shape)
