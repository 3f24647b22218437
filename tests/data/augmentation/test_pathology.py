"""Painted diseases stay in the lung, and the mask follows the stated convention."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.data.augmentation import pathology

CASES = 24


def painted(transform, cases=CASES, lungs=None):
    """Return image and mask `[s s]` of before, and `[cases s s]` of after."""
    if lungs is None:
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        lungs = np.minimum((x - 0.4) ** 2, (x + 0.4) ** 2) / 0.3**2 + (y / 0.6) ** 2 < 1
    image = np.where(lungs, -750.0, 40.0).astype(np.float32)
    mask = lungs.astype(np.float32)
    keys = jax.random.split(jax.random.key(3), cases)
    paint = jax.vmap(lambda k: transform(jnp.array(image[..., None]), mask, k))
    images, masks = jax.jit(paint)(keys)
    return image, mask, np.asarray(images[..., 0]), np.asarray(masks)


@pytest.mark.parametrize(
    "transform",
    [
        pathology.consolidate,
        pathology.add_ground_glass,
        pathology.add_effusion,
        pathology.add_nodules,
        pathology.add_bullae,
        pathology.remove_lungs,
    ],
)
def test_only_the_lung_changes(transform):
    image, mask, images, _ = painted(transform)
    assert (images[:, mask == 0] == 40.0).all()
    assert (np.abs(images - image).max((1, 2)) > 20).mean() > 0.8


@pytest.mark.parametrize(
    "transform,low,high",
    [
        (pathology.consolidate, -200, 200),
        (pathology.add_ground_glass, -800, -150),
        (pathology.add_nodules, -160, 110),
    ],
)
def test_diseased_lung_is_denser_and_stays_in_the_mask(transform, low, high):
    image, mask, images, masks = painted(transform)
    np.testing.assert_array_equal(masks, np.tile(mask, (CASES, 1, 1)))
    assert (images >= image - 1e-3).all()
    changed = np.abs(images - image).max((1, 2)) > 20
    assert changed.mean() > 0.8
    densest = images[changed][:, mask > 0].max(1)
    assert (densest > low).all() and (densest < high).all()


def test_bullae_are_air_in_the_mask():
    image, mask, images, masks = painted(pathology.add_bullae)
    np.testing.assert_array_equal(masks, np.tile(mask, (CASES, 1, 1)))
    assert (images <= image + 1e-3).all()
    emptiest = images[:, mask > 0].min(1)
    assert (emptiest < -900).all() and (emptiest >= -995).all()


def test_fluid_is_below_the_lung_and_not_in_the_mask():
    _, mask, images, masks = painted(pathology.add_effusion)
    lost = mask - masks
    assert (lost >= 0).all() and (lost.sum((1, 2)) > 0).all()
    fluid = (lost > 0.99) & (mask > 0)
    assert (images[fluid] > -100).all() and (images[fluid] < 120).all()
    rows = np.arange(64)[:, None]
    level_of = [(m * rows).sum() / max(m.sum(), 1e-6) for m in (*lost, *masks)]
    assert (np.array(level_of[:CASES]) > np.array(level_of[CASES:])).all()


def test_fluid_is_higher_at_the_wall_than_in_the_middle(monkeypatch):
    """In a square lung; the mean of both walls, as the surface may be tilted."""
    monkeypatch.setattr(pathology, "one_lung", lambda mask, side: mask)
    square = np.zeros((64, 64), bool)
    square[12:52, 12:52] = True
    _, mask, _, masks = painted(pathology.add_effusion, lungs=square)
    height = (mask - masks).sum(axis=1)
    walls = (height[:, 12:15].mean(axis=1) + height[:, 49:52].mean(axis=1)) / 2
    assert (walls > height[:, 31:33].mean(axis=1) + 1).all()


def test_fluid_compresses_most_lungs():
    """Lung without air lies between the fluid and the rest of the lung."""
    _, mask, images, masks = painted(pathology.add_effusion, cases=4 * CASES)
    rows = np.arange(64)[:, None] * np.ones(64)
    dense = [(left > 0.9) & (image > -50) for image, left in zip(images, masks)]
    assert 0.45 < np.mean([airless.any() for airless in dense]) < 0.9
    is_above = [
        rows[airless].mean() < rows[(mask > 0) & (left < 0.01)].mean()
        for airless, left in zip(dense, masks)
        if airless.sum() > 20
    ]
    assert len(is_above) > CASES and np.mean(is_above) > 0.8


def test_fluid_is_less_dense_than_consolidated_lung():
    _, mask, images, masks = painted(pathology.add_effusion)
    fluid = [image[(mask > 0) & (left < 0.01)] for image, left in zip(images, masks)]
    _, mask, images, _ = painted(pathology.consolidate)
    filled = [image[(mask > 0) & (image > -50)] for image in images]
    fluid, filled = (
        np.array([np.median(values) for values in all_values if values.size > 20])
        for all_values in (fluid, filled)
    )
    assert min(len(fluid), len(filled)) > CASES / 2
    assert (fluid[:, None] < filled).mean() > 0.95


def test_some_lungs_are_filled_completely():
    _, mask, images, _ = painted(pathology.consolidate)
    left = np.arange(64)[None, :] < 32
    sides = [(mask > 0) & left, (mask > 0) & ~left]
    filled = [[(image[side] > -200).mean() for side in sides] for image in images]
    assert np.max(filled, axis=1).max() > 0.99  # one lung
    assert np.max(filled, axis=1).min() < 0.5  # and small parts


def test_consolidation_leaves_as_much_air_in_a_slice_as_it_is_told():
    least = {}
    for share in (0.0, 0.1, 0.5):
        consolidate = partial(pathology.consolidate, least_air=share)
        _, mask, images, _ = painted(consolidate, cases=200)
        least[share] = min((image[mask > 0] < -500).mean() for image in images)
    assert least[0.0] == 0.0 and 0.1 < least[0.1] < 0.3
    assert least[0.5] == pytest.approx(0.5, abs=0.03)  # edges are blended


def test_without_lung_there_are_organs_and_gas():
    _, mask, images, masks = painted(pathology.remove_lungs)
    assert not masks.any()
    inside = images[:, mask > 0]
    assert (images[:, mask == 0] == 40.0).all()
    assert (np.abs(np.median(inside, axis=1)) < 200).all()
    gas = (inside < -700).mean(1)
    assert (gas == 0).any() and (gas > 0.02).any() and gas.max() < 0.5
