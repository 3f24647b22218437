"""Normalization layers, by name: batch, group and instance norm.

All of them normalize `x + bias`, `[b h w c]`, with moments in float32, return the dtype of
`x`, have the parameters `scale` and `bias` `[c]`, and are called as
`norm(name=)(x, bias, train=)`. The moments are plain means, so a batch that is split across
devices needs nothing else: its moments are those of the whole batch, unless a norm is told
otherwise. Where rows are folded, `x` is `[b h w/p c*p]`; see `layouts.Folded`. Only
BatchNorm has running statistics, which `training.batch_stats` re-estimates by setting its
momentum to 0.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-3  # the default of Keras' BatchNormalization


class BatchNorm(nn.Module):
    """Batch norm of `x + bias`, `[b h w c]`, with a bias `[c]` that is never added.

    In training, the norm would subtract the bias again: it only shifts the running mean.
    This makes its gradient exactly zero. Otherwise it would be rounding noise, which Adam
    rescales into full-size, machine-dependent updates. Moments are in float32. Equivalent
    to `nn.BatchNorm`, with fewer operations.

    With `per_device`, each of the devices that share a batch (`device_mesh.sharing_batch`)
    normalizes its examples by their own moments, without waiting for the others. The
    running statistics are the means over the devices: the variance leaves out that between
    their means.

    Source: Ioffe & Szegedy, arXiv:1502.03167; per device: Goyal et al., arXiv:1706.02677,
    section 2.3.
    """

    momentum: float = 0.9
    per_device: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array, *, train: bool) -> jax.Array:
        c = bias.shape
        pixels = x.shape[-1] // c[0]
        scale = self.param("scale", nn.initializers.ones, c, jnp.float32)
        offset = self.param("bias", nn.initializers.zeros, c, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, c, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, c, jnp.float32)
        parts = _devices_sharing() if self.per_device and train else 1
        shape, axes = x.shape, (0, 1, 2)
        if parts > 1:  # `[d b/d h w c]`, and the moments are `[d 1 1 1 c]`
            x, axes = x.reshape(parts, -1, *shape[1:]), (1, 2, 3)
        if train:
            mean, square = _moments(x, axes, pixels, keepdims=parts > 1)
            var = jnp.maximum(square - mean * mean, 0)
            if not self.is_initializing():
                means = mean + bias, var
                if parts > 1:
                    means = [m.mean((0, 1, 2, 3)) for m in means]
                for running, new in zip(
                    (running_mean, running_var), means, strict=True
                ):
                    kept = self.momentum * running.value
                    running.value = kept + (1 - self.momentum) * new
        else:
            mean, var = running_mean.value - bias, running_var.value
        factor = scale * jax.lax.rsqrt(var + EPSILON)
        scaled = x * _of_pixels(factor, pixels)
        normalized = scaled + _of_pixels(offset - mean * factor, pixels)
        return normalized.astype(x.dtype).reshape(shape)


class GroupNorm(nn.Module):
    """Group norm of `x + bias`, `[b h w c]`: moments of each image and group of channels.

    It has no statistics, and an image has the same result in training and afterwards, in
    any batch. A group has gcd(c, `channels_per_group`) channels, which divides every c.
    The branches of an inception stem are never mixed: 3f has the same divisors among the
    powers of two as f. With one channel per group this is instance norm, which would
    subtract the bias again; it is then left out, as in `BatchNorm`.

    Source: Wu & He, arXiv:1803.08494, with 8 channels instead of their 16, because the
    layers are narrow; instance norm: Ulyanov et al., arXiv:1607.08022.
    """

    channels_per_group: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array, *, train: bool) -> jax.Array:
        del train
        c = bias.shape[0]
        pixels = x.shape[-1] // c
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        offset = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        size = math.gcd(c, self.channels_per_group)
        if size == 1:
            bias = jnp.zeros_like(bias)
        # Moments of the channels, and from them those of the groups: a reshaped copy of x
        # would have a minor axis of a few elements.
        mean, square = _moments(x, (1, 2), pixels)
        square += bias * (2 * mean + bias)
        mean, square = (_mean_of_groups(m, size) for m in (mean + bias, square))
        var = jnp.maximum(square - mean * mean, 0)
        factor = scale * jax.lax.rsqrt(var + EPSILON)  # [b c]
        shift = offset + (bias - mean) * factor
        factor, shift = (_of_pixels(a, pixels) for a in (factor, shift))
        return (x * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)


def _devices_sharing() -> int:
    """Count the devices that share the batch of what is being traced."""
    return max(jax.sharding.get_abstract_mesh().size, 1)


def _moments(
    x: jax.Array, axes: tuple[int, ...], pixels: int, *, keepdims: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Means of x and x*x over axes and folded pixels, `[... c*p] -> [... c]`."""
    wide = x.astype(jnp.float32)
    means = tuple(a.mean(axes, keepdims=keepdims) for a in (wide, wide * wide))
    if pixels == 1:
        return means
    return tuple(m.reshape(*m.shape[:-1], -1, pixels).mean(axis=-1) for m in means)


def _of_pixels(values: jax.Array, pixels: int) -> jax.Array:
    """Repeat `[... c]` for the p pixels that are folded, `[... c*p]`."""
    return values if pixels == 1 else jnp.repeat(values, pixels, axis=-1)


def _mean_of_groups(moments: jax.Array, size: int) -> jax.Array:
    """Replace `[b c]` by the means of groups of `size` channels, as `[b c]`."""
    b, c = moments.shape
    means = moments.reshape(b, c // size, size).mean(axis=-1)
    return jnp.repeat(means, size, axis=-1)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": BatchNorm,
    "group": GroupNorm,
    "instance": functools.partial(GroupNorm, channels_per_group=1),
}


def make_norm(
    norm: Callable[..., nn.Module], *, momentum: float = 0.9, per_device: bool = False
) -> Callable[..., nn.Module]:
    """Return the constructor of a norm, which takes the module's name.

    Args:
      norm: a row of NORMS.
      momentum, per_device: see `BatchNorm`; other norms ignore them.
    """
    if norm is BatchNorm:
        return functools.partial(BatchNorm, momentum=momentum, per_device=per_device)
    return norm
