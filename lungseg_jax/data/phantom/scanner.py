"""Effects of the scanner: couch, blur, noise, streaks, field of view."""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from lungseg_jax.data.phantom.canvas import Canvas, stroke
from lungseg_jax.data.phantom.patient import pick

AIR_HU, METAL_FROM_HU = -1000.0, 2500.0
FOAM_HU = (-955.0, -800.0)
FILLING_HU = (-1100.0, -850.0)  # between the shells of the couch; often air
COUCH_SHELL_HU = (-350.0, 250.0)
CLOTHES_HU = (-900.0, -500.0)
PADDING_HU = (-1024.0, -2000.0, -2500.0, -3024.0)
# Calibration varies: in some scanners, air and lung are closer to water.
CALIBRATION, CALIBRATION_CHANCE = (0.82, 1.0), 0.4
KERNELS = {"soft": 0.3, "medium": 0.5, "sharp": 0.2}
# Ranges of noise in soft tissue: hardly any, low, usual, strong.
NOISE_HU = {(0.5, 6.0): 0.1, (6.0, 18.0): 0.25, (18.0, 60.0): 0.53, (60.0, 140.0): 0.12}
COARSE_CHANCE, COARSE_MATRICES = 0.3, (64, 96, 128, 160, 192, 256, 320)
STREAK_CHANCE, METAL_CHANCE, ROUND_FIELD_CHANCE = 0.1, 0.04, 0.6
NO_COUCH_CHANCE = 0.12
NO_FOAM_CHANCE = 0.4  # there is air between the back and the shell


def paint_couch(canvas: Canvas, skin: np.ndarray, rng: np.random.Generator) -> None:
    """Paint clothes, and the couch below the skin.

    This precedes the painting of the body, which sinks into the foam.

    Args:
      canvas: to paint on.
      skin: outline `[points 2]` in pixels.
      rng: source of all draws.
    """
    size = canvas.size
    if rng.random() < NO_COUCH_CHANCE:
        return
    x = np.linspace(-0.05, 1.05, 60) * size
    lean = (x - rng.uniform(0.45, 0.55) * size) / size
    bend = np.abs(lean) if rng.random() < 0.2 else lean**2  # some couches are a V
    sag = -rng.uniform(0.0, 0.5) * size * bend
    foam_depth = rng.uniform(0.012, 0.06) * size
    top = skin[:, 1].max() - rng.uniform(0.0, 0.015) * size + sag
    foam = np.concatenate(
        [np.stack([x, top], 1), np.stack([x, top + foam_depth], 1)[::-1]]
    )
    foam_hu = rng.uniform(*FOAM_HU)
    if rng.random() > NO_FOAM_CHANCE:
        canvas.paint_pixels(foam, foam_hu)
    depth, shells, filling = foam_depth, rng.integers(1, 4), rng.uniform(*FILLING_HU)
    lines: list[np.ndarray] = []
    for _ in range(shells):
        lines.append(np.stack([x, top + depth], axis=1))
        width = rng.uniform(0.003, 0.012) * size
        if len(lines) > 1 and filling > AIR_HU:
            canvas.paint_pixels(np.concatenate([lines[-2], lines[-1][::-1]]), filling)
        canvas.paint_pixels(stroke(lines[-1], width), rng.uniform(*COUCH_SHELL_HU))
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


@dataclass(frozen=True)
class Protocol:
    """The settings of a scan, which all slices of a series share.

    Attributes:
      matrix: pixels along a side before the image is resampled to its size.
      blur, sharpen, halo, grain: of the kernel; lengths in pixels of a 512 matrix.
      noise_hu: standard deviation of the noise in soft tissue.
      gain, offset_hu: errors of calibration.
      padding_hu: outside of the round field of view; 0.0: the field is square.
      enlarge: interpolation from the matrix to the size of the image.
    """

    matrix: int
    blur: float
    sharpen: float
    halo: float
    grain: float
    noise_hu: float
    gain: float
    offset_hu: float
    streak_hu: float
    metal_hu: float
    padding_hu: float
    enlarge: int


def draw_protocol(rng: np.random.Generator, *, may_be_coarse: bool = True) -> Protocol:
    """Draw kernel, dose, matrix, calibration, artifacts and padding.

    Args:
      rng: source of all draws.
      may_be_coarse: whether the image may be enlarged from a smaller matrix.
    """
    kernel = pick(rng, KERNELS)
    blur, sharpen = {
        "soft": (rng.uniform(0.9, 2.2), 0.0),
        "medium": (rng.uniform(0.6, 1.2), 0.0),
        "sharp": (rng.uniform(0.5, 0.8), rng.uniform(0.5, 2.0)),
    }[kernel]
    low, high = pick(rng, NOISE_HU)
    noise_hu = np.exp(rng.uniform(np.log(low), np.log(high)))
    is_coarse, matrix = rng.random() < COARSE_CHANCE, int(rng.choice(COARSE_MATRICES))
    is_off, gain = rng.random() < CALIBRATION_CHANCE, rng.uniform(*CALIBRATION)
    chances = STREAK_CHANCE, METAL_CHANCE, ROUND_FIELD_CHANCE
    has_streaks, has_metal, is_round = rng.random(3) < chances
    return Protocol(
        matrix=matrix if is_coarse and may_be_coarse else 512,
        blur=blur,
        sharpen=sharpen,
        halo=rng.uniform(1.0, 2.5),
        grain=rng.uniform(0.4, 1.0) * (2.2 if rng.random() < 0.2 else 1),
        noise_hu=float(noise_hu),
        gain=gain if is_off else 1.0,
        offset_hu=float(rng.normal(0, 12)),
        streak_hu=rng.uniform(60, 220) if has_streaks else 0.0,
        metal_hu=rng.uniform(150, 600) if has_metal else 0.0,
        padding_hu=float(rng.choice(PADDING_HU)) if is_round else 0.0,
        enlarge=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST])),
    )


def acquire(
    canvas: Canvas, mask: np.ndarray, protocol: Protocol, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scan of the painted canvas, int16 `[size size]`, and its mask.

    The mask, uint8 `[size size]`, ends with the field of view.
    """
    size, p = canvas.size, protocol
    image = canvas.image
    if p.matrix < size:
        image = cv2.resize(image, (p.matrix, p.matrix), interpolation=cv2.INTER_AREA)
    pixel = len(image) / max(p.matrix, 512)
    metal = np.argwhere(image > METAL_FROM_HU)
    image = _reconstruct(image * np.float32(p.gain) + np.float32(p.offset_hu), p, pixel)
    attenuation = np.clip(image - AIR_HU, 0, 1500) / 1000
    # Draws of one number per pixel come last: the others must not depend on the size.
    if p.metal_hu or len(metal):
        strength = p.metal_hu or 150.0
        star = _star(len(image), metal, rng)
        image += strength * star * np.minimum(attenuation + 0.2, 1)
    if p.streak_hu:
        image += p.streak_hu * _streaks(attenuation, rng)
    noise = rng.standard_normal(image.shape, np.float32)
    noise = _reconstruct(noise, dataclasses.replace(p, blur=p.grain), pixel)
    image += p.noise_hu / noise.std() * noise * (0.75 + 0.35 * _overview(attenuation))
    if p.padding_hu:
        _pad(image, p.padding_hu)
        mask = np.where(_outside(size), np.uint8(0), mask)
    if len(image) < size:
        image = cv2.resize(image, (size, size), interpolation=p.enlarge)
    return np.rint(image).clip(-3024, 3071).astype(np.int16), mask


def _reconstruct(image: np.ndarray, p: Protocol, pixel: float) -> np.ndarray:
    """Blur and then sharpen the image, as kernels do; sharp ones ring at edges."""
    image = _blur(image, p.blur * pixel)
    if p.sharpen:
        image += p.sharpen * (image - _blur(image, p.halo * pixel))
    return image


def _blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), max(sigma_px, 0.2))


def _overview(attenuation: np.ndarray) -> np.ndarray:
    """Smooth the attenuation; noise is strongest deep inside the body."""
    coarse = cv2.resize(attenuation, (16, 16), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, attenuation.shape)


def _pad(image: np.ndarray, padding_hu: float) -> None:
    """Set pixels outside the round field of view to a noisy constant, in place."""
    outside = _outside(len(image))
    noise = (image[outside] - AIR_HU).clip(-90, 90)
    image[outside] = padding_hu + 0.6 * noise


def _outside(size: int) -> np.ndarray:
    """Return where the round field of view is not, bool `[size size]`."""
    square = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) ** 2
    return square[:, None] + square > (size / 2) ** 2


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


def _star(size: int, metal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw bright and dark rays around metal, which fade with the distance from it.

    Without metal in the image, `[n 2]`, a piece of it is drawn somewhere in the middle.
    """
    rays = rng.standard_t(2.0, size=(180, 1)).clip(-5, 5).astype(np.float32) / 3
    reach_px = rng.uniform(0.15, 0.35) * size
    distance = np.arange(size, dtype=np.float32)[None] * 1.5
    polar = cv2.GaussianBlur(rays, (1, 3), 0.6) * np.exp(-distance / reach_px)
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    x, y = rng.uniform([0.42, 0.25], [0.58, 0.75]) * size
    if len(metal):
        y, x = metal.mean(axis=0)
    star = cv2.warpPolar(polar, (size, size), (x, y), 1.5 * size, flags)
    if not len(metal):
        cv2.circle(star, (round(x), round(y)), max(round(size * 0.008), 1), 4.0, -1)
    return star
