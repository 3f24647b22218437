"""The two blocks of the comparison, and the layers they are built of.

Parameter names are the checkpoint format: every module that owns parameters has an
explicit name, and a test pins names and counts.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

LEAKY_SLOPE = 0.3  # the default of Keras' LeakyReLU, which the notebooks used
BATCH_NORM_EPSILON = 1e-3  # the default of Keras' BatchNormalization


class Conv(nn.Module):
    """A convolution with stride 1 and SAME padding, `[b h w i] -> [b h w features]`.

    With `branches` > 1 it is that many convolutions of the same input, side by side
    along the output channels, each initialised with its own fan (Glorot & Bengio 2010).
    Where a norm follows, the bias is a parameter that is not trained.
    """

    features: int
    kernel_size: int
    branches: int = 1
    norm_follows: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, out = self.kernel_size, self.features
        kernel = self.param(
            "kernel", glorot_by_branch(self.branches), (k, k, x.shape[-1], out)
        )
        bias = self.param("bias", nn.initializers.zeros, (out,))
        if self.norm_follows:
            # The norm takes the bias away again, so its gradient is zero but for rounding
            # noise. Adam would scale that noise up to full steps, other ones on every
            # machine, and the running means would chase a bias that walks at random.
            bias = jax.lax.stop_gradient(bias)
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        if k == 1:
            # As a matrix product: XLA's CPU convolution does not see this case. With the
            # pools below it makes the train step about 1.7 times faster there.
            return x @ kernel[0, 0] + bias
        return (
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + bias
        )


class ConvNormAct(nn.Module):
    """Convolution, batch norm, LeakyReLU: the unit of every layer but the head."""

    features: int
    kernel_size: int
    branches: int = 1
    dtype: Any = jnp.float32
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = Conv(
            self.features,
            self.kernel_size,
            self.branches,
            norm_follows=True,
            dtype=self.dtype,
            name="conv",
        )
        x = conv(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.bn_momentum,
            epsilon=BATCH_NORM_EPSILON,
            dtype=self.dtype,
            name="norm",
        )(x)
        return nn.leaky_relu(x, LEAKY_SLOPE)


class ConvBlock(nn.Module):
    """One ConvNormAct, `[b h w i] -> [b h w 4*filters]`."""

    filters: int
    kernel_size: int = 3
    dtype: Any = jnp.float32
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layer = ConvNormAct(
            4 * self.filters,
            self.kernel_size,
            dtype=self.dtype,
            bn_momentum=self.bn_momentum,
            name="layer",
        )
        return layer(x, train=train)


class InceptionBlock(nn.Module):
    """Four branches of `filters` channels, `[b h w i] -> [b h w 4*filters]`.

    [1x1, 3x3, 3x3], [1x1, 3x3], [1x1] and [2x2 max-pool with stride 1, 1x1]. The three
    1x1 layers that open the first three branches see the same input; `stem` holds them
    as one matrix product, in this order of branches along its output channels.
    """

    filters: int
    dtype: Any = jnp.float32
    bn_momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def layer(features, kernel_size, name, branches=1):
            module = ConvNormAct(
                features,
                kernel_size,
                branches,
                dtype=self.dtype,
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


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pool with stride 2, `[b 2h 2w c] -> [b h w c]`.

    As a maximum of slices: the gradient of `nn.max_pool` is a select-and-scatter, which
    is very slow on the CPU (the train step was 2.2 times slower with it).
    """
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def max_pool_same(x: jax.Array) -> jax.Array:
    """2x2 max-pool with stride 1 and SAME padding, `[b h w c] -> [b h w c]`.

    SAME pads this window below and to the right, so the last row and column are
    compared with themselves.
    """
    x = jnp.maximum(x, jnp.concatenate([x[:, 1:], x[:, -1:]], axis=1))
    return jnp.maximum(x, jnp.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2))


def glorot_by_branch(branches: int) -> nn.initializers.Initializer:
    """Glorot normal for `branches` kernels that lie side by side in one array."""
    glorot = nn.initializers.glorot_normal()

    def init(key, shape, dtype=jnp.float32):
        one = (*shape[:-1], shape[-1] // branches)
        kernels = [glorot(k, one, dtype) for k in jax.random.split(key, branches)]
        return jnp.concatenate(kernels, axis=-1)

    return init
