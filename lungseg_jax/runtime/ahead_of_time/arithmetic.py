"""The multiplications and additions of a program, read from its StableHLO."""

import math
import re
from collections import defaultdict

SHAPES = re.compile(r": \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>")


def count_flops(text: str, devices: int = 1) -> float:
    """Count the operations of convolutions and matrix products, on all devices.

    Everything else is small beside them. Loops run once.

    Args:
      text: of a lowered program, before it is divided among devices.
      devices: those that share what is written for one of them (`shard_map`).
    """
    own, calls = defaultdict(float), defaultdict(list)
    name, times = "", 1
    for line in text.splitlines():
        if header := re.match(r'\s*func\.func .*?@"?([^"(]+)"?\(', line):
            name = header[1]
        elif "sdy.manual_computation" in line:
            times, indent = devices, len(line) - len(line.lstrip())
        elif times > 1 and line.startswith(" " * indent + "}"):
            times = 1
        elif "stablehlo.convolution" in line or "stablehlo.dot_general" in line:
            own[name] += times * _flops(line)
        elif call := re.search(r'\bcall @"?([^"(]+)"?\(', line):
            calls[name].append((call[1], times))

    def total(name: str) -> float:
        return own[name] + sum(n * total(called) for called, n in calls[name])

    return total("main")


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
