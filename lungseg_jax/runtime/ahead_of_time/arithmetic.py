"""The multiplications and additions of a program, read from its StableHLO."""

import dataclasses
import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator

SHAPES = re.compile(r": \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>")
FUNCTION = re.compile(r'\s*func\.func .*?@"?([^"(]+)"?\(')
CALL = re.compile(r'\bcall @"?([^"(]+)"?\(')
CONSTANT = re.compile(r"\s*(%\w+) = stablehlo\.constant dense<(\d+)> : tensor<i32>")
START = re.compile(r"(%iterArg\w*) = (%\w+)")
BELOW = re.compile(r"stablehlo\.compare\s+LT, (%\w+), (%\w+),")


def count_flops(text: str, devices: int = 1) -> float:
    """Count the operations of convolutions and matrix products, on all devices.

    Everything else is small beside them. A loop whose counter goes from 0 to a constant, as
    that of `jax.lax.scan`, runs so often; other loops run once.

    Args:
      text: of a lowered program, before it is divided among devices.
      devices: those that share what is written for one of them (`shard_map`).
    """
    own, calls = defaultdict(float), defaultdict(list)
    for name, times, line in _lines(text, devices):
        if "stablehlo.convolution" in line or "stablehlo.dot_general" in line:
            own[name] += times * _flops(line)
        elif call := CALL.search(line):
            calls[name].append((call[1], times))

    @functools.cache
    def total(name: str) -> float:
        return own[name] + sum(n * total(called) for called, n in calls[name])

    return total("main")


@dataclasses.dataclass
class _Region:
    """A loop or a part of one device: how often it runs, and where its lines end."""

    indent: int
    times: int
    counters: set[str] = dataclasses.field(default_factory=set)  # of a loop, from 0


def _lines(text: str, devices: int) -> Iterator[tuple[str, int, str]]:
    """Yield each line with its function, and how often a call of that one runs it."""
    name, constants, regions = "", {}, []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if header := FUNCTION.match(line):
            name, constants, regions = header[1], {}, []
        elif constant := CONSTANT.match(line):
            constants[constant[1]] = int(constant[2])
        elif "sdy.manual_computation" in line:
            regions.append(_Region(indent, devices))
        elif "stablehlo.while(" in line:
            starts = START.findall(line)
            counters = {arg for arg, start in starts if constants.get(start) == 0}
            regions.append(_Region(indent, 1, counters))
        elif regions and line.startswith(" " * regions[-1].indent + "}"):
            if line.endswith("do {"):  # the body follows the condition
                regions[-1].counters = set()
            else:
                regions.pop()
        elif regions and (limit := BELOW.search(line)):
            if limit[1] in regions[-1].counters:
                regions[-1].times = constants.get(limit[2], 1)
        yield name, math.prod(region.times for region in regions), line


def _flops(line: str) -> float:
    shapes = SHAPES.search(line).groups()
    left, right, result = ([*map(_side, shape.split("x"))] for shape in shapes)
    if "dot_general" in line:
        axes = re.search(r"contracting_dims = \[([\d, ]*)\]", line)[1]
        terms = math.prod(left[int(axis)] for axis in axes.split(",") if axis.strip())
    else:
        kernel = re.search(r"\]x\[([^\]]*)\]->", line)[1].split(", ")
        terms = math.prod(right[:-1]) / right[kernel.index("o")]
    return 2.0 * math.prod(result[:-1]) * terms


def _side(text: str) -> int:
    """Return a side of a tensor; its last word is the dtype."""
    return int(text) if text.isdecimal() else 1
