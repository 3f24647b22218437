"""The operations used by the blocks, in forms that move little memory.

Each is equivalent to its textbook layer; tests compare the two, forward and backward. On
two CPU cores the train step of the inception U-Net takes about a third of the
time of the textbook forms (`benchmarks/textbook_forms.py --size 256`).

The layout of its input decides the form of an operation: `convolutions` and `pools` are for
plain arrays, `folded_convolutions` and `folded_pools` for maps of folded rows, which a TPU
prefers. For a GPU, `tensor_cores` computes the narrow convolutions of plain arrays.
"""

import jax

import lungseg_jax.models.convolutions as convolutions
import lungseg_jax.models.folded_convolutions as folded_convolutions
import lungseg_jax.models.folded_pools as folded_pools
import lungseg_jax.models.pools as pools
import lungseg_jax.models.tensor_cores as tensor_cores
from lungseg_jax.models.layouts import FeatureMap, SkipConcat, is_folded
from lungseg_jax.runtime.compilation import target_platform


def conv2d(x: FeatureMap | SkipConcat, kernel: jax.Array) -> FeatureMap:
    """Convolution with stride 1 and SAME zero padding, kernel `[k k i o]`, k odd.

    Computed in the dtype of `x`.
    """
    if is_folded(x):
        return folded_convolutions.conv2d(x, kernel)
    if target_platform() == "gpu" and tensor_cores.is_narrow(x, kernel):
        return tensor_cores.conv2d(x, kernel)
    return convolutions.conv2d(x, kernel)


def max_pool_same(x: FeatureMap | SkipConcat) -> FeatureMap | SkipConcat:
    """2x2 max-pool with stride 1 and SAME padding, which is below and to the right."""
    return (folded_pools if is_folded(x) else pools).max_pool_same(x)


def max_pool(x: FeatureMap) -> FeatureMap:
    """2x2 max-pool with stride 2, `[b 2h 2w c] -> [b h w c]`."""
    return (folded_pools if is_folded(x) else pools).max_pool(x)


@jax.custom_vjp
def materialize_gradient(x: FeatureMap) -> FeatureMap:
    """Return `x`; on a GPU, its gradient is computed once and kept in memory.

    Otherwise, XLA's GPU compiler computes it again in every operation that reads it, such
    as the gradients of all branches of a block, and with it those of the pools behind it.
    """
    return x


def _materialize(_, g):
    g = jax.lax.platform_dependent(
        g, cuda=jax.lax.optimization_barrier, default=lambda g: g
    )
    return (g,)


materialize_gradient.defvjp(lambda x: (x, None), _materialize)
