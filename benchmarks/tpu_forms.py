"""Blocks of `incp_snapshot:full` in the forms for a TPU and in the plain ones, compiled.

    pip install -e .[tpu]                     # no TPU is needed
    python benchmarks/tpu_forms.py                # a minute or more of a core for each line
    python benchmarks/tpu_forms.py --topology=v6e --blocks=head --batch=64

Compiles the forward and the backward pass of single blocks, in bfloat16, and prints the
time that the compiler expects, the bytes that are moved, and how many of them are data.
Nothing runs. See `lungseg compile` for how far to trust the figures.
"""

import argparse

import jax
import jax.numpy as jnp

from lungseg_jax.models.blocks import Conv, InceptionBlock
from lungseg_jax.models.layouts import SkipConcat, fold, unfold
from lungseg_jax.models.operators import max_pool
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.ahead_of_time import topologies
from lungseg_jax.runtime.ahead_of_time.compile_report import report_compilation
from lungseg_jax.runtime.ahead_of_time.topology_names import parse_topology

BLOCKS = ("down_1", "down_2", "up_6", "head")
FOLDED = 16  # pixels of a row at 512 pixels


def inputs(block: str, batch: int, is_folded: bool):
    """Return the shapes of a block's input, as in the network at 512 pixels."""

    def of(side, channels):
        x = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.bfloat16)
        pixels = FOLDED * side // 512
        return jax.eval_shape(lambda x: fold(x, pixels), x) if is_folded else x

    return {
        "down_1": lambda: of(512, 1),
        "down_2": lambda: of(256, 32),
        "up_6": lambda: SkipConcat(of(128, 64), of(256, 32)),
        "head": lambda: SkipConcat(of(256, 32), of(512, 32)),
    }[block]()


def make_apply(block: str):
    """Return `init(key, x)` of a block's variables, and `apply(variables, x)`."""
    if block == "head":
        head = Conv(1, kernel_size=3)

        def apply(variables, x):
            x = jax.tree.map(lambda a: a.astype(jnp.float32), x)
            return unfold(head.apply(variables, x)[0])

        return head.init, apply
    module = InceptionBlock(filters=16 if block == "down_2" else 8)

    def apply(variables, x):
        y, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return max_pool(y) if block.startswith("down") else y

    return lambda key, x: module.init(key, x, train=False), apply


def trace(block: str, batch: int, is_folded: bool, device: jax.Device):
    """Trace a block and its gradients, by its parameters and its input."""
    init, apply = make_apply(block)
    x = inputs(block, batch, is_folded)
    variables = jax.eval_shape(init, jax.random.key(0), x)

    def step(variables, x, g):
        y, gradients = jax.vjp(apply, variables, x)
        return y, gradients(g)

    sharding = device_mesh.replicated(device_mesh.make_mesh([device]))
    arguments = jax.tree.map(
        lambda a: a.update(sharding=sharding),
        (variables, x, jax.eval_shape(apply, variables, x)),
    )
    return jax.jit(step).trace(*arguments)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e", help="one chip of a TPU")
    parser.add_argument("--blocks", default=",".join(BLOCKS))
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    topology = parse_topology(args.topology)
    device, *_ = topologies.devices_of(topology)
    for block in args.blocks.split(","):
        for form, is_folded in {"folded": True, "plain": False}.items():
            traced = trace(block, args.batch, is_folded, device)
            made = report_compilation(traced, topology.chip, 1)
            if made.refusal:
                print(f"{block:7} {form:7} does not fit: {made.refusal}", flush=True)
                continue
            print(
                f"{block:7} {form:7} {1e3 * made.estimate_s:6.1f} ms, "
                f"{made.moved.padded / 1e9:5.2f} GB moved, "
                f"{made.moved.logical / 1e9:5.2f} GB of them data",
                flush=True,
            )


if __name__ == "__main__":
    main()
