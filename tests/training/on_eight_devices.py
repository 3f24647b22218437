"""Train steps and gradients of a process with eight devices: `on_eight_devices.py FILE`.

Writes, as JSON, gradients of convolutions on eight devices and on one, what batch norms
exchange, and the train steps as StableHLO and compiled.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from test_programs import small_config

from lungseg_jax.models.layouts import SkipConcat, fold, unfold
from lungseg_jax.models.norms import BatchNorm
from lungseg_jax.models.operators import conv2d
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.ahead_of_time.hlo import measure_traffic
from lungseg_jax.training.programs import lower_train_steps

# (kernel size, output channels, is a skip concatenated, are rows folded)
CASES = [(k, o, j, False) for k in (1, 3) for o in (1, 5) for j in (False, True)]
CASES += [(k, 5, j, True) for k in (1, 3) for j in (False, True)]


def integers(*shape, seed):
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def gradient(k, outputs, joined, folded, shared, copied):
    """The gradient of a bfloat16 convolution by its kernel, as nested lists."""

    def loss(kernel, x, coarse, weights):
        x, coarse = x.astype(jnp.bfloat16), coarse.astype(jnp.bfloat16)
        x = fold(x, 2) if folded else x
        with device_mesh.sharing_batch(copied):
            y = unfold(conv2d(SkipConcat(coarse, x) if joined else x, kernel))
        return (y * weights.astype(jnp.bfloat16)).astype(jnp.float32).sum()

    arguments = (
        integers(k, k, 6 if joined else 4, outputs, seed=0),
        integers(8, 4, 4, 4, seed=1),
        integers(8, 2, 2, 2, seed=2),
        integers(8, 4, 4, outputs, seed=3),
    )
    arguments = jax.device_put(arguments, (copied, shared, shared, shared))
    return np.asarray(jax.jit(jax.grad(loss))(*arguments)).tolist()


def exchanges_of_norm(mesh, *, per_device):
    """The collectives of a batch norm and its gradients: [opcode, count, bytes] each."""
    replicated, by_example = device_mesh.replicated(mesh), device_mesh.by_example(mesh)
    norm = BatchNorm(per_device=per_device)
    shapes = jax.eval_shape(
        lambda x, b: norm.init(jax.random.key(0), x, b, train=True),
        jnp.zeros((8, 4, 4, 2)),
        jnp.zeros(2),
    )

    def loss(params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        with device_mesh.sharing_batch(replicated):
            y, new = norm.apply(
                variables, x, jnp.zeros(2), train=True, mutable=["batch_stats"]
            )
        return (y**3).sum(), new

    copies = jax.tree.map(lambda s: s.update(sharding=replicated), shapes)
    x = jax.ShapeDtypeStruct((8, 4, 4, 2), np.float32, sharding=by_example)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True))
    compiled = gradient.lower(copies["params"], copies["batch_stats"], x).compile()
    collectives = measure_traffic(compiled.as_text()).collectives
    return [[c.opcode, c.count, c.bytes] for c in collectives]


def main(file):
    mesh = device_mesh.make_mesh()
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    places = {
        "eight": (device_mesh.by_example(mesh), device_mesh.replicated(mesh)),
        "one": (first, first),
    }
    result = {
        name: [gradient(*case, *where) for case in CASES]
        for name, where in places.items()
    }
    result["norms"] = [
        exchanges_of_norm(mesh, per_device=per_device) for per_device in (False, True)
    ]
    lowered = lower_train_steps(small_config(), mesh, 24)
    result["stablehlo"] = lowered.as_text()
    result["compiled"] = lowered.compile().as_text()
    with open(file, "w") as opened:
        json.dump(result, opened)


if __name__ == "__main__":
    main(sys.argv[1])
