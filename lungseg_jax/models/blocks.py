"""The two blocks of the comparison, and their layers.

Parameter names are the checkpoint format: every module that owns parameters has an
explicit name, and a test pins names and counts.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungseg_jax.models.layouts import (
    FeatureMap,
    SkipConcat,
    channels_of,
    concatenate_channels,
    split_channels,
)
from lungseg_jax.models.norms import BatchNorm
from lungseg_jax.models.operators import conv2d, max_pool_same

LEAKY_SLOPE = 0.3  # the default of Keras' LeakyReLU, which the notebooks used


class Conv(nn.Module):
    """A convolution with stride 1 and SAME padding, `[b h w i] -> [b h w features]`.

    With `branches` > 1, it holds that many convolutions of the same input, concatenated
    along the output channels and each initialized with its own fan (Glorot & Bengio 2010).

    Returns the convolution and, separately, the bias `[features]`.
    """

    features: int
    kernel_size: int
    branches: int = 1

    @nn.compact
    def __call__(self, x: FeatureMap | SkipConcat) -> tuple[FeatureMap, jax.Array]:
        k, out = self.kernel_size, self.features
        init = glorot_by_branch(self.branches)
        kernel = self.param("kernel", init, (k, k, channels_of(x), out), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (out,), jnp.float32)
        return conv2d(x, kernel), bias


class ConvNormAct(nn.Module):
    """Convolution, norm, LeakyReLU: every layer except the head."""

    features: int
    kernel_size: int
    branches: int = 1
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: FeatureMap | SkipConcat, *, train: bool) -> FeatureMap:
        conv = Conv(self.features, self.kernel_size, self.branches, name="conv")
        norm = self.norm(name="norm")
        y, bias = conv(x)
        y = jax.tree.map(lambda a: norm(a, bias, train=train), y)
        return jax.tree.map(lambda a: nn.leaky_relu(a, LEAKY_SLOPE), y)


class ConvBlock(nn.Module):
    """One ConvNormAct, `[b h w i] -> [b h w 4*filters]`."""

    filters: int
    kernel_size: int = 3
    norm: Callable[..., nn.Module] = BatchNorm

    @property
    def reach(self) -> int:
        """Pixels on each side of an output that it depends on."""
        return self.kernel_size // 2

    @property
    def narrowest(self) -> int:
        """Channels of its narrowest layer."""
        return 4 * self.filters

    @nn.compact
    def __call__(self, x: FeatureMap | SkipConcat, *, train: bool) -> FeatureMap:
        layer = ConvNormAct(
            4 * self.filters, self.kernel_size, norm=self.norm, name="layer"
        )
        return layer(x, train=train)


class InceptionBlock(nn.Module):
    """Four branches of `filters` channels, `[b h w i] -> [b h w 4*filters]`.

    [1x1, 3x3, 3x3], [1x1, 3x3], [1x1] and [2x2 max-pool with stride 1, 1x1]. The 1x1
    layers that open the first three branches see the same input; `stem` computes them as
    one matrix product, with the branches in this order along its output channels.
    """

    filters: int
    norm: Callable[..., nn.Module] = BatchNorm

    reach = 2  # two 3x3 layers

    @property
    def narrowest(self) -> int:
        """Channels of its narrowest layer."""
        return self.filters

    @nn.compact
    def __call__(self, x: FeatureMap | SkipConcat, *, train: bool) -> FeatureMap:
        def layer(features, kernel_size, name, branches=1):
            module = ConvNormAct(
                features, kernel_size, branches, norm=self.norm, name=name
            )
            return lambda inputs: module(inputs, train=train)

        f = self.filters
        stem = layer(3 * f, 1, "stem", branches=3)(x)
        deep, middle, point = split_channels(stem, 3)
        deep = layer(f, 3, "deep_2")(layer(f, 3, "deep_1")(deep))
        middle = layer(f, 3, "middle")(middle)
        pooled = layer(f, 1, "pooled")(max_pool_same(x))
        return concatenate_channels(deep, middle, point, pooled)


def glorot_by_branch(branches: int) -> nn.initializers.Initializer:
    """Glorot normal for `branches` kernels concatenated along the output channels."""
    glorot = nn.initializers.glorot_normal()

    def init(key, shape, dtype=jnp.float32):
        branch_shape = (*shape[:-1], shape[-1] // branches)
        kernels = [
            glorot(k, branch_shape, dtype) for k in jax.random.split(key, branches)
        ]
        return jnp.concatenate(kernels, axis=-1)

    return init
