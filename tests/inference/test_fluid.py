"""Pleural fluid by its density, in drawn lungs whose fluid is known."""

import cv2
import numpy as np
import pytest

from lungseg_jax.data.io.images import read_image, read_mask
from lungseg_jax.inference.fluid import find_fluid

AERATED, NOISE = -750.0, 40.0


def lungs(side=256):
    """Two ellipses, bool `[side side]`."""
    mask = np.zeros((side, side), np.uint8)
    for x in (0.3, 0.7):
        center, axes = (
            (round(x * side), side // 2),
            (side * 16 // 100, side * 32 // 100),
        )
        cv2.ellipse(mask, center, axes, 0, 0, 360, 1, -1)
    return mask.astype(bool)


def layer(mask, share=0.35):
    """The lowest part of the lung on the left side of a picture."""
    part = mask.copy()
    part[:, mask.shape[1] // 2 :] = False
    rows = np.flatnonzero(part.any(axis=1))
    part[: rows[-1] - round(share * len(rows))] = False
    return part


def draw(mask, part, hu, noise=NOISE):
    """A slice: aerated lung, a part of another density, soft tissue and air around."""
    rng = np.random.default_rng(0)
    image = np.full(mask.shape, 50.0)
    image[:, : mask.shape[1] // 20] = -1000
    image[mask] = AERATED
    image[part] = hu
    return (
        cv2.GaussianBlur(image, (0, 0), 1) + rng.normal(0, noise, mask.shape)
    ).astype(np.float32)


@pytest.mark.parametrize("hu", [-5, 5, 12])
@pytest.mark.parametrize("side", [160, 256, 512])
def test_what_is_as_dense_as_water_is_fluid(side, hu):
    mask = lungs(side)
    part = layer(mask)
    found = find_fluid(draw(mask, part, hu), mask)
    assert found.dtype == bool
    assert np.count_nonzero(found & part) > 0.93 * np.count_nonzero(part)
    # Cells are coarser than the pixels of the wall, and of the surface.
    assert np.count_nonzero(found & ~part) < 0.05 * np.count_nonzero(part)


@pytest.mark.parametrize("hu", [-600, -350, -100, 32, 60, 90])
def test_lung_of_another_density_stays(hu):
    mask = lungs()
    for part in (layer(mask), layer(mask, 1.0)):
        assert not find_fluid(draw(mask, part, hu), mask).any()


def test_lung_with_some_air_stays():
    """What is solid of it has the mean of water, but it is not even."""
    mask = lungs()
    part = layer(mask, 0.6)
    field = cv2.GaussianBlur(
        np.random.default_rng(1).normal(size=mask.shape), (0, 0), 6
    )
    image = draw(mask, part, 0.0)
    image[part] += -60 + 100 * field[part] / field.std()
    assert not find_fluid(image, mask).any()


def test_fluid_and_lung_without_air_are_told_apart_in_one_picture():
    mask = lungs()
    fluid = layer(mask)
    dense = layer(mask[:, ::-1])[:, ::-1]
    image = draw(mask, fluid, 5)
    image[dense] = draw(mask, dense, 40)[dense]
    found = find_fluid(image, mask)
    assert (found & fluid).sum() > 0.95 * fluid.sum() and not (found & dense).any()


@pytest.mark.parametrize("noise", [0, 40, 150])
def test_healthy_lungs_and_their_rims_stay(noise):
    """Masks are often a little larger than the lung: walls and vessels are dense, too."""
    mask = lungs()
    image = draw(mask, layer(mask), AERATED, noise)
    for y in range(60, 200, 20):  # vessels, in part with the density of water
        cv2.line(image, (60, y), (100, y + 10), 0.0, 2)
    kernel = np.ones((5, 5), np.uint8)
    generous = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    assert not find_fluid(image, generous).any()


def test_a_little_fluid_stays():
    mask = lungs()
    spot = np.zeros_like(mask)
    spot[120:128, 70:78] = True  # 64 of 21,000 pixels
    assert not find_fluid(draw(mask, spot, 5), mask).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 2), (7, 5)])
def test_masks_of_any_size(shape):
    water = np.zeros(shape, np.float32)
    for mask in (np.zeros(shape, bool), np.ones(shape, bool)):
        found = find_fluid(water, mask)
        assert found.shape == shape and not (found & ~mask).any()


def test_true_masks_hold_no_fluid(real_data):
    for name in sorted(path.name for path in (real_data / "2d_masks").iterdir()):
        image = read_image(real_data / "2d_images" / name)
        mask = read_mask(real_data / "2d_masks" / name) > 0
        assert not find_fluid(image, mask).any(), name
