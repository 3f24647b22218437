"""What the makers of accelerators say about a chip: memory, bandwidth, arithmetic."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip as its maker describes it.

    Attributes:
      platform: of JAX.
      memory: bytes.
      bandwidth: of that memory, bytes per second.
      flops: multiplications and additions per second, dense, in bfloat16.
      clock: Hz, for a compiler that estimates cycles: `flops` over what a chip's matrix
        units do in a cycle. 0: its compiler has no estimate.
      host: the chips of one host, as a topology.
      source: where the numbers are from.
    """

    platform: str
    memory: float = 0.0
    bandwidth: float = 0.0
    flops: float = 0.0
    clock: float = 0.0
    host: str = "1"
    source: str = ""


GIB = 2**30
TPU = "https://docs.cloud.google.com/tpu/docs/"
CHIPS: dict[str, Chip] = {
    "cpu": Chip("cpu"),
    "h100": Chip(
        *("gpu", 80e9, 3.35e12, 989e12),
        host="8",
        source="https://www.nvidia.com/en-us/data-center/h100/ (SXM)",
    ),
    "v4": Chip("tpu", 32 * GIB, 1.2e12, 275e12, 1.05e9, "2x2x1", f"{TPU}v4"),
    "v5e": Chip("tpu", 16 * GIB, 819e9, 197e12, 1.5e9, "2x2", f"{TPU}v5e"),
    "v5p": Chip("tpu", 95 * GIB, 2.765e12, 459e12, 1.75e9, "2x2x1", f"{TPU}v5p"),
    "v6e": Chip("tpu", 32 * GIB, 1.6e12, 918e12, 1.75e9, "2x2", f"{TPU}v6e"),
}
