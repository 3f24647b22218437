"""Effects of the scanner: couch, blur, noise, streaks, field of view."""

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas, stroke

AIR_HU = -1000.0
FOAM_HU = (-955.0, -800.0)
COUCH_SHELL_HU = (-350.0, 250.0)
CLOTHES_HU = (-900.0, -500.0)
PADDING_HU = (-1024.0, -2000.0, -2500.0)
# Calibration varies: in some scanners, air and lung are closer to water.
CALIBRATION = (0.82, 1.0)
STREAK_CHANCE, METAL_CHANCE = 0.12, 0.05
VERY_NOISY_CHANCE, ROUND_FIELD_CHANCE = 0.04, 0.7


def paint_couch(canvas: Canvas, skin: np.ndarray, rng: np.random.Generator) -> None:
    """Paint clothes, and the couch below the skin.

    This precedes the painting of the body, which sinks into the foam.

    Args:
      canvas: to paint on.
      skin: outline `[points 2]` in pixels.
      rng: source of all draws.
    """
    size = canvas.size
    x = np.linspace(-0.05, 1.05, 60) * size
    lean = (x - rng.uniform(0.45, 0.55) * size) / size
    sag = -rng.uniform(0.0, 0.5) * size * lean**2
    foam_depth = rng.uniform(0.012, 0.06) * size
    top = skin[:, 1].max() - rng.uniform(0.0, 0.015) * size + sag
    foam = np.concatenate(
        [np.stack([x, top], 1), np.stack([x, top + foam_depth], 1)[::-1]]
    )
    canvas.paint_pixels(foam, rng.uniform(*FOAM_HU))
    depth, shells = foam_depth, rng.integers(1, 4)
    for _ in range(shells):
        width = rng.uniform(0.003, 0.012) * size
        line = np.stack([x, top + depth], axis=1)
        canvas.paint_pixels(stroke(line, width), rng.uniform(*COUCH_SHELL_HU))
        depth += rng.uniform(0.02, 0.12) * size
        sag_change = rng.choice([1.0, 1.0, 0.3])
        top = top + (sag_change - 1.0) * sag
    _paint_clothes(canvas, skin, rng)


def _paint_clothes(canvas: Canvas, skin: np.ndarray, rng: np.random.Generator) -> None:
    """Paint faint folds of clothing that follow the front of the body at a distance."""
    size = canvas.size
    front = skin[skin[:, 1] < skin[:, 1].mean()]
    front = front[np.argsort(front[:, 0])]
    for _ in range(rng.poisson(1.6)):
        first = rng.integers(0, len(front) // 2)
        line = front[first : first + rng.integers(12, len(front))].copy()
        folds = np.interp(
            np.linspace(0, 1, len(line)), np.linspace(0, 1, 9), rng.uniform(0, 1, 9)
        )
        line[:, 1] -= (rng.uniform(0.005, 0.05) + folds * rng.uniform(0, 0.05)) * size
        pen = stroke(line, rng.uniform(0.002, 0.004) * size)
        canvas.paint_pixels(pen, rng.uniform(*CLOTHES_HU), rng.uniform(0.2, 0.7))


def acquire(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return the scan of the painted canvas, int16 `[size size]`."""
    size, pixel = canvas.size, canvas.size / 512
    blur_px, grain_px = rng.uniform(0.6, 1.2) * pixel, rng.uniform(0.5, 0.9) * pixel
    noise_hu = np.clip(rng.lognormal(np.log(27), 0.45), 10, 60)
    noise_hu *= 1.8 if rng.random() < VERY_NOISY_CHANCE else 1.0
    streak_hu = rng.uniform(60, 220) if rng.random() < STREAK_CHANCE else 0.0
    metal_hu = rng.uniform(250, 600) if rng.random() < METAL_CHANCE else 0.0
    gain = rng.uniform(*CALIBRATION) if rng.random() < 0.5 else 1.0
    is_round, padding_hu = rng.random() < ROUND_FIELD_CHANCE, rng.choice(PADDING_HU)

    # Draws of one number per pixel come last: the others must not depend on the size.
    image = _blur(canvas.image * np.float32(gain), blur_px)
    attenuation = np.clip(image - AIR_HU, 0, 1500) / 1000
    if metal_hu:
        image += metal_hu * _star(size, rng) * np.minimum(attenuation + 0.2, 1)
    if streak_hu:
        image += streak_hu * _streaks(attenuation, rng)
    noise = _blur(rng.standard_normal((size, size), np.float32), grain_px)
    image += noise_hu / noise.std() * noise * (0.75 + 0.35 * _overview(attenuation))
    if is_round:
        _pad(image, padding_hu)
    return np.rint(image).clip(-3000, 3071).astype(np.int16)


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma_px, 0.2))


def _overview(attenuation: np.ndarray) -> np.ndarray:
    """Smooth the attenuation; noise is strongest deep inside the body."""
    coarse = cv2.resize(attenuation, (16, 16), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, attenuation.shape)


def _pad(image: np.ndarray, padding_hu: float) -> None:
    """Set pixels outside the round field of view to a noisy constant, in place."""
    size = len(image)
    outside = np.full(image.shape, 255, np.uint8)
    cv2.circle(outside, (size // 2, size // 2), size // 2, 0, -1)
    noise = (image[outside > 0] - AIR_HU).clip(-90, 90)
    image[outside > 0] = padding_hu + 0.6 * noise


def _streaks(attenuation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw streaks along the rows whose rays cross too much tissue."""
    size = len(attenuation)
    tilt_degrees = rng.uniform(-6, 6)
    rows = cv2.blur(attenuation.mean(axis=1, keepdims=True), (1, max(size // 16, 1)))
    weight = np.clip((rows / rows.max() - 0.6) / 0.4, 0, 1)
    lines = cv2.resize(rng.standard_normal((size, 10), np.float32), (size, size))
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), tilt_degrees, 1.0)
    lines = cv2.warpAffine(lines * weight, turn, (size, size))
    return lines * np.minimum(attenuation, 1)


def _star(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw bright and dark rays around metal, which fade with the distance from it."""
    rays = rng.standard_t(2.0, size=(180, 1)).clip(-5, 5).astype(np.float32) / 3
    reach_px = rng.uniform(0.15, 0.35) * size
    distance = np.arange(size, dtype=np.float32)[None] * 1.5
    polar = cv2.GaussianBlur(rays, (1, 3), 0.6) * np.exp(-distance / reach_px)
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    x, y = rng.uniform([0.42, 0.25], [0.58, 0.75]) * size
    star = cv2.warpPolar(polar, (size, size), (x, y), 1.5 * size, flags)
    cv2.circle(star, (round(x), round(y)), max(round(size * 0.008), 1), 4.0, -1)
    return star
