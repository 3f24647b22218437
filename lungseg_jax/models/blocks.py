"""The two blocks of the comparison, and their layers.

Parameter names are the checkpoint format: every module that owns parameters has an
explicit name, and a test pins names and counts.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lungseg_jax.models.operators import SkipConcat, conv2d, max_pool_same

LEAKY_SLOPE = 0.3  # the default of Keras' LeakyReLU, which the notebooks used
BATCH_NORM_EPSILON = 1e-3  # the default of Keras' BatchNormalization


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
    def __call__(self, x: jax.Array | SkipConcat) -> tuple[jax.Array, jax.Array]:
        k, out = self.kernel_size, self.features
        inputs = x.channels if isinstance(x, SkipConcat) else x.shape[-1]
        init = glorot_by_branch(self.branches)
        kernel = self.param("kernel", init, (k, k, inputs, out))
        bias = self.param("bias", nn.initializers.zeros, (out,))
        return conv2d(x, kernel), bias


class Norm(nn.Module):
    """Batch norm of `x + bias`, `[b h w c]`, with a bias `[c]` that is never added.

    In training, the norm would subtract the bias again: it only shifts the running mean.
    This makes its gradient exactly zero. Otherwise it would be rounding noise, which Adam
    rescales into full-size, machine-dependent updates. Moments are in float32. Equivalent
    to `nn.BatchNorm`, with fewer operations.

    Source: Ioffe & Szegedy, arXiv:1502.03167.
    """

    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array, *, train: bool) -> jax.Array:
        c = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, c)
        offset = self.param("bias", nn.initializers.zeros, c)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, c)
        running_var = self.variable("batch_stats", "var", jnp.ones, c)
        if train:
            wide = x.astype(jnp.float32)
            mean = wide.mean(axis=(0, 1, 2))
            var = jnp.maximum((wide * wide).mean(axis=(0, 1, 2)) - mean * mean, 0)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * (
                    mean + bias
                )
                running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value - bias, running_var.value
        factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        return (x * factor + (offset - mean * factor)).astype(x.dtype)


class ConvNormAct(nn.Module):
    """Convolution, batch norm, LeakyReLU: every layer except the head."""

    features: int
    kernel_size: int
    branches: int = 1
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array | SkipConcat, *, train: bool) -> jax.Array:
        conv = Conv(self.features, self.kernel_size, self.branches, name="conv")
        x = Norm(self.bn_momentum, name="norm")(*conv(x), train=train)
        return nn.leaky_relu(x, LEAKY_SLOPE)


class ConvBlock(nn.Module):
    """One ConvNormAct, `[b h w i] -> [b h w 4*filters]`."""

    filters: int
    kernel_size: int = 3
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array | SkipConcat, *, train: bool) -> jax.Array:
        layer = ConvNormAct(
            4 * self.filters,
            self.kernel_size,
            bn_momentum=self.bn_momentum,
            name="layer",
        )
        return layer(x, train=train)


class InceptionBlock(nn.Module):
    """Four branches of `filters` channels, `[b h w i] -> [b h w 4*filters]`.

    [1x1, 3x3, 3x3], [1x1, 3x3], [1x1] and [2x2 max-pool with stride 1, 1x1]. The 1x1
    layers that open the first three branches see the same input; `stem` computes them as
    one matrix product, with the branches in this order along its output channels.
    """

    filters: int
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array | SkipConcat, *, train: bool) -> jax.Array:
        def layer(features, kernel_size, name, branches=1):
            module = ConvNormAct(
                features,
                kernel_size,
                branches,
                bn_momentum=self.bn_momentum,
                name=name,
            )
            return lambda inputs: module(inputs, train=train)

        f = self.filters
        stem = layer(3 * f, 1, "stem", branches=3)(x)
        deep, middle, point = jnp.split(stem, 3, axis=-1)
        deep = layer(f, 3, "deep_2")(layer(f, 3, "deep_1")(deep))
        middle = layer(f, 3, "middle")(middle)
        pooled = layer(f, 1, "pooled")(max_pool_same(x))
        return jnp.concatenate([deep, middle, point, pooled], axis=-1)


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
