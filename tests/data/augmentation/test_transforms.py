"""All transforms: pure functions of the key, applied as often as their knobs say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.data.augmentation.transforms import (
    GEOMETRY,
    TRANSFORMS,
    Transform,
    augment,
)
from lungseg_jax.training import knobs


def chests(n, side=64):
    """Return n equal images `[n s s 1]` of two airy discs in a body, and their masks."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    lungs = np.minimum((x - 0.4) ** 2, (x + 0.4) ** 2) / 0.3**2 + (y / 0.5) ** 2 < 1
    hu = np.where(lungs, -750.0, np.where(body, 40.0, -1000.0))
    hu = hu + np.random.default_rng(0).normal(0, 20, hu.shape)
    images = np.broadcast_to(hu[None, ..., None], (n, side, side, 1))
    masks = np.broadcast_to(lungs[None], (n, side, side))
    return jnp.asarray(images, jnp.float32), jnp.asarray(masks, jnp.float32)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_applied_with_its_probability(name):
    images, masks = chests(64)
    run = jax.jit(partial(augment, **{name: 0.5}))
    changed, changed_masks = run(images, masks, jax.random.key(1))
    assert changed.shape == images.shape and changed.dtype == jnp.float32
    assert np.isfinite(changed).all()
    assert (changed_masks >= 0).all() and (changed_masks <= 1).all()
    touched = (changed != images).any((1, 2, 3))
    assert 0.25 < touched.mean() < 0.7  # a field of view may be wider than the image
    np.testing.assert_array_equal(changed_masks[~touched], masks[~touched])
    again, _ = run(images, masks, jax.random.key(1))
    np.testing.assert_array_equal(changed, again)
    assert len({image.tobytes() for image in np.asarray(changed)}) > 16


def test_one_by_one_and_all_at_once_agree():
    """The form of the CPU and that of accelerators show the same, rounding aside."""
    images, masks = chests(8, side=32)
    chances = {name: 0.5 for name in TRANSFORMS}
    run = partial(augment, **chances)
    serial = jax.jit(run)(images, masks, jax.random.key(2))
    # Of several calls at once, vmap computes both branches of every choice.
    vectorized = jax.jit(jax.vmap(lambda key: run(images, masks, key)))
    together = vectorized(jax.random.key(2)[None])
    np.testing.assert_allclose(together[0][0], serial[0], atol=0.5)
    np.testing.assert_allclose(together[1][0], serial[1], atol=1e-3)


def test_every_knob_belongs_to_a_transform_or_to_the_geometry():
    names = {k.name[8:] for k in knobs.all_knobs() if k.name.startswith("augment.")}
    options = {o for transform in TRANSFORMS.values() for o in transform.options}
    assert names == {*TRANSFORMS, *GEOMETRY, *options}


def test_a_transform_is_given_its_options():
    images, masks = chests(4, side=32)
    key = jax.random.key(0)
    painted, _ = augment(images, masks, key, consolidation=1.0, least_air=0.0)
    kept, _ = augment(images, masks, key, consolidation=1.0, least_air=1.0)
    assert (painted != images).any() and (kept == images).all()


def test_an_appended_transform_leaves_the_draws_of_the_others(monkeypatch):
    images, masks = chests(8, side=16)
    key, options = jax.random.key(0), {"noise": 0.5, "density": 0.5, "scale": 1.5}
    before, _ = augment(images, masks, key, **options)
    nothing = Transform(lambda image, mask, key: (image, mask), "nothing")
    monkeypatch.setitem(TRANSFORMS, "nothing", nothing)
    after, _ = augment(images, masks, key, **options)
    np.testing.assert_array_equal(before, after)


def test_an_unknown_option_is_an_error():
    images, masks = chests(1, side=16)
    with pytest.raises(TypeError, match="typo"):
        augment(images, masks, jax.random.key(0), typo=1.0)
