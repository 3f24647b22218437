"""Imitated scanners, against what their parameters say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.data.augmentation import fields, scanner

CASES = 32


def scanned(transform, image, mask=None):
    """Apply a transform with several keys; return images and masks `[CASES h w]`."""
    image = jnp.asarray(image, jnp.float32)
    mask = jnp.zeros(image.shape) if mask is None else jnp.asarray(mask, jnp.float32)
    keys = jax.random.split(jax.random.key(4), CASES)
    apply = jax.vmap(lambda key: transform(image[..., None], mask, key))
    images, masks = jax.jit(apply)(keys)
    return np.asarray(images[..., 0]), np.asarray(masks)


def noise(side=64, sd=30.0):
    return np.random.default_rng(0).normal(0, sd, (side, side))


def test_density_changes_the_air_of_the_lung_only():
    """-700 HU is 400 below a vessel; from 0.6 to 1.8 of that, within 8 % unevenness."""
    mask = np.zeros((48, 48))
    mask[:, :24] = 1
    image = np.full((48, 48), -700.0)
    image[:4] = 30.0  # vessels
    images, _ = scanned(scanner.change_density, image, mask)
    assert (images[:, :, 24:] == image[:, 24:]).all()
    np.testing.assert_allclose(images[:, :4], 30.0)
    medians = np.median(images[:, 4:, :24], axis=(1, 2))
    assert medians.min() >= -985 and medians.min() < -900
    assert medians.max() < -500 and medians.max() > -620


def test_blur_and_sharpening_change_noise_as_a_kernel_does():
    before = noise().std()
    blurred, _ = scanned(scanner.blur, noise())
    sharp, _ = scanned(scanner.sharpen, noise())
    assert (blurred.std((1, 2)) < before).all()
    assert (sharp.std((1, 2)) > before).all()


def test_a_gaussian_filter_has_its_standard_deviation():
    impulse = np.zeros((31, 31), np.float32)
    impulse[15, 15] = 1
    for sigma in (0.8, 1.2, 2.0):
        spread = np.asarray(fields.gaussian(jnp.array(impulse), jnp.array(sigma)))
        position = np.arange(31) - 15
        variance = (spread.sum(1) * position**2).sum()
        np.testing.assert_allclose(spread.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(variance, sigma**2, rtol=0.05)


def test_coarse_pixels_keep_a_ramp_and_lose_detail():
    ramp = np.broadcast_to(np.linspace(-500, 500, 64), (64, 64))
    images, _ = scanned(scanner.coarsen, ramp)
    inner = np.s_[:, 12:-12, 12:-12]
    step = 1000 / 63
    assert np.abs(images[inner] - ramp[None][inner]).max() < 3 * step
    fine, _ = scanned(scanner.coarsen, noise())
    assert (fine.std((1, 2)) < 0.8 * noise().std()).all()


def test_noise_is_mostly_little_and_at_most_its_limit():
    images, _ = scanned(scanner.add_noise, np.zeros((48, 48)))
    levels = images.std((1, 2))
    assert np.median(levels) < 60 and 80 < levels.max() < 1.3 * scanner.MOST_NOISE_HU
    assert np.abs(images.mean((1, 2))).max() < 15


def test_offset_and_gain_are_within_their_ranges():
    shifted, _ = scanned(scanner.add_offset, np.zeros((8, 8)))
    low, high = scanner.OFFSET_HU
    assert (shifted >= low).all() and (shifted <= high).all()
    assert np.ptp(shifted) > 100
    stretched, _ = scanned(scanner.change_gain, np.full((8, 8), -1000.0))
    np.testing.assert_allclose(stretched, -1000.0)  # air stays
    water, _ = scanned(scanner.change_gain, np.zeros((8, 8)))
    low, high = (1000 * (gain - 1) for gain in scanner.GAIN)
    assert (water >= low - 0.01).all() and (water <= high + 0.01).all()
    assert np.ptp(water) > 150


def test_padding_is_a_constant_outside_a_field_and_not_lung():
    images, masks = scanned(
        scanner.pad_field_of_view, np.full((48, 48), 5.0), np.ones((48, 48))
    )
    outside = images != 5.0
    assert outside.any((1, 2)).mean() > 0.5
    np.testing.assert_array_equal(masks, np.where(outside, 0.0, 1.0))
    assert set(np.unique(images[outside])) <= {-1070.0, -1000.0, 0.0}
    assert not outside[:, 24, 24].any()


def test_smooth_noise_is_alike_everywhere():
    keys = jax.random.split(jax.random.key(0), 1500)
    draw = jax.vmap(lambda key: fields.smooth_noise(key, (48, 40), (1.0, 0.7, 0.5)))
    variance = np.asarray(jax.jit(draw)(keys)).var(axis=0)
    assert variance.mean() == pytest.approx(1.0, abs=0.1)
    parts = [variance[:8], variance[-8:], variance[:, :8], variance[:, -8:]]
    for part in (*parts, variance[:8, :8], variance[12:36, 12:28]):
        assert part.mean() == pytest.approx(1.0, abs=0.25)


def test_smooth_noise_has_mean_zero_variance_one_and_no_grain():
    keys = jax.random.split(jax.random.key(0), CASES)
    draw = jax.vmap(lambda key: fields.smooth_noise(key, (48, 40), (1.0, 0.7, 0.5)))
    drawn = np.asarray(jax.jit(draw)(keys))
    assert drawn.shape == (CASES, 48, 40)
    assert abs(drawn.mean()) < 0.1 and 0.7 < drawn.var() < 1.4
    steps = np.diff(drawn, axis=1).std()
    assert steps < 0.4 * drawn.std()  # of white noise: 1.4
