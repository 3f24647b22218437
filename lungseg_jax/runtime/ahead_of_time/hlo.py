"""What a compiled program moves and exchanges, read from its text.

`cost_analysis()` has no answer on GPUs that are not there, and counts neither the padding
of a TPU's tiles nor what stays in its vector memory. The grammar of the text:
https://openxla.org/xla/operation_semantics and https://openxla.org/xla/tiled_layout.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

ARRAY = re.compile(r"\b(pred|[subf]\d+|bf16|f8\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# They move nothing themselves, or what they move is counted elsewhere.
FREE = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"),
    *("while", "conditional", "call", "async-start", "async-update", "async-done"),
    *("copy-done", "slice-done", "partition-id"),
    *(f"{name}-done" for name in COLLECTIVES),
}
# A TPU's copies between main and vector memory, of which instructions then read nothing.
PREFETCHES = {"copy-start", "slice-start"}
READ_IN_PART = {"gather", "dynamic-slice", "slice"}  # as much as they return
HOPS = re.compile(r"(?:body|to_apply|calls|(?:true|false)_computation)=%?([\w.-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes in the main memory of a device, without and with the padding of tiles."""

    logical: int = 0
    padded: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.logical + other.logical, self.padded + other.padded)

    def __mul__(self, times: int) -> "Size":
        return Size(self.logical * times, self.padded * times)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation; `rest` begins with the operands."""

    name: str
    type: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.rest.partition("), ")[0])

    @property
    def cycles(self) -> int:
        """What the TPU compiler expects it to take; 0 if it does not say."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0


Computations = dict[str, list[Instruction]]


@dataclasses.dataclass(frozen=True, order=True)
class Collective:
    """Equal exchanges between devices: their number and their bytes on a device."""

    opcode: str
    dtype: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one run of a program costs a device; loops of unknown length run once.

    Attributes:
      moved: by all instructions, to and from the main memory.
      instructions: how many were started.
      cycles: the sum of a TPU compiler's estimates; they may overlap.
      collectives: by kind and dtype.
    """

    moved: Size
    instructions: int
    cycles: int
    collectives: Sequence[Collective]


def measure_traffic(text: str) -> Traffic:
    """Measure a compiled program from `compiled.as_text()`."""
    computations, entry = parse(text)
    moved, started, cycles = Size(), 0, 0
    exchanged = defaultdict(lambda: [0, 0])
    for name, times in _runs(computations, entry).items():
        types = {i.name: i.type for i in computations[name]}
        for instruction in computations[name]:
            if instruction.opcode in FREE:
                continue
            started += times
            cycles += instruction.cycles * times
            moved += _moved(instruction, types, computations) * times
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                for dtype, size in _exchanged(instruction).items():
                    exchanged[kind, dtype][0] += times
                    exchanged[kind, dtype][1] += size * times
    collectives = [Collective(*key, *value) for key, value in exchanged.items()]
    return Traffic(moved, started, cycles, sorted(collectives))


def parse(text: str) -> tuple[Computations, str]:
    """Return the instructions of each computation, and the name of the entry."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = re.match(r"(?:ENTRY )?%?([\w.-]+)", line)[1]
            current = computations[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := INSTRUCTION.match(line)):
            current.append(Instruction(*match.groups()))
    return computations, entry


def size_of(type_: str) -> Size:
    """Return the size of a type, which may be a tuple; vector memory does not count."""
    return sum((_size(*array) for array in ARRAY.findall(type_)), Size())


def _runs(computations: Computations, entry: str) -> dict[str, int]:
    """Return how often each computation runs; those inside fusions do not."""
    runs, todo = defaultdict(int), [(entry, 1)]
    while todo:
        name, times = todo.pop()
        runs[name] += times
        for instruction in computations[name]:
            if instruction.opcode not in (
                "while",
                "conditional",
                "call",
                "async-start",
            ):
                continue
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.rest)
            inner = times * int(trips[1]) if trips else times
            names = HOPS.findall(instruction.rest)
            for branches in BRANCHES.findall(instruction.rest):
                names += re.findall(r"%?([\w.-]+)", branches)
            todo += [(hop, inner) for hop in names if hop in computations]
    return runs


def _moved(
    instruction: Instruction, types: dict[str, str], computations: Computations
) -> Size:
    """Return what an instruction writes and reads."""
    if instruction.opcode in PREFETCHES:
        return _prefetched(instruction.type)
    written = size_of(instruction.type)
    if instruction.opcode in READ_IN_PART:
        return written * 2
    inner = []
    if instruction.opcode == "fusion":
        called = re.search(r"calls=%?([\w.-]+)", instruction.rest)
        inner = computations.get(called[1], []) if called else []
    total = written
    for i, operand in enumerate(instruction.operands):
        part = _read_in_part(inner, i)
        total += size_of(types.get(operand, "")) if part is None else part
    return total


def _prefetched(type_: str) -> Size:
    """Return what a copy or a slice moves on its sides that are in main memory."""
    *_, one, other, _ = ARRAY.findall(type_)  # its two sides, and a context
    dtype, dimensions, layout = other
    size = _size(dtype, dimensions, re.sub(r"S\(\d+\)", "", layout))
    return size * sum("S(" not in side[2] for side in (one, other))


def _read_in_part(inner: Iterable[Instruction], index: int) -> Size | None:
    """Return how much a fusion reads of a parameter; None: all of it."""
    of_parameter = re.compile(rf"{index}\)")
    for parameter in inner:
        if parameter.opcode == "parameter" and of_parameter.match(parameter.rest):
            users = [i for i in inner if parameter.name in i.operands]
            if users and all(
                i.opcode in READ_IN_PART and i.operands[0] == parameter.name
                for i in users
            ):
                return sum((size_of(i.type) for i in users), Size())
    return None


def _exchanged(instruction: Instruction) -> dict[str, int]:
    """Return the bytes of a collective's result, by dtype."""
    arrays = ARRAY.findall(instruction.type)
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        arrays = arrays[len(arrays) // 2 :]  # the operands come first
    sizes = defaultdict(int)
    for dtype, dimensions, _ in arrays:
        sizes[dtype] += _bytes(dtype, _dimensions(dimensions))
    return sizes


def _size(dtype: str, dimensions: str, layout: str) -> Size:
    sides = _dimensions(dimensions)
    if "S(" in layout:
        return Size()
    order, _, tiling = layout.partition(":")
    stored = [sides[int(i)] for i in reversed(order.split(","))] if order else sides
    if tile := re.search(r"T\(([\d,]+)\)", tiling):
        tile = _dimensions(tile[1])
        stored = [1] * (len(tile) - len(stored)) + stored
        outer = len(stored) - len(tile)
        stored[outer:] = [
            -(-n // t) * t for n, t in zip(stored[outer:], tile, strict=True)
        ]
    return Size(_bytes(dtype, sides), _bytes(dtype, stored))


def _dimensions(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _bytes(dtype: str, sides: Sequence[int]) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(sides) * bits // 8
