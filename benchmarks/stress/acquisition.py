"""Changes of the scanner: its values, noise, kernel, artifacts and padding.

Each maps an image `[h w]` and a mask `[h w]`, with a level and a random generator, to
another image of the same size; the mask stays. Padding stays where it was.
"""

import cv2
import numpy as np
from scipy import fft, ndimage

from . import anatomy
from .geometry import Changed

KERNEL_PEAK = 0.45  # cycles per mm, where lung kernels amplify most
STREAK_ANGLES, STREAK_WIDTH_MM = 40, 1.0
METAL_HU, HIGHEST_HU = 3000, 3071


def offset(image, mask, hu, rng) -> Changed:
    """Add `hu` to every pixel: a wrong rescale intercept or calibration of water."""
    return image + hu, mask


def gain(image, mask, factor, rng) -> Changed:
    """Multiply attenuation, HU + 1000, by a factor: another spectrum."""
    return _measured(image, (image + 1000) * factor - 1000), mask


def noise(image, mask, hu, rng) -> Changed:
    """Add noise with a standard deviation of `hu` and the short correlation of CT."""
    return _measured(image, image + hu * anatomy.fine_noise(mask.shape, rng)), mask


def blur(image, mask, mm, rng) -> Changed:
    """Blur by a Gaussian with a standard deviation of `mm`: a smooth kernel."""
    filled = anatomy.fill_padding(image, rng)
    sigma = mm / anatomy.pixel_mm(mask.shape)
    return _measured(image, cv2.GaussianBlur(filled, (0, 0), sigma)), mask


def sharp_kernel(image, mask, boost, rng) -> Changed:
    """Amplify frequencies, up to `boost` times at `KERNEL_PEAK`: edges ring, noise grows.

    The response 1 + (boost - 1) x^2 exp(1 - x^2), x = f / KERNEL_PEAK, has the shape of
    the transfer functions of lung and bone kernels.
    """
    filled = anatomy.fill_padding(image, rng)
    edge = 16
    wide = cv2.copyMakeBorder(filled, edge, edge, edge, edge, cv2.BORDER_REFLECT_101)
    mm = anatomy.pixel_mm(mask.shape)
    y = fft.fftfreq(wide.shape[0], mm)[:, None]
    x = fft.rfftfreq(wide.shape[1], mm)[None]
    ratio = (x**2 + y**2) / KERNEL_PEAK**2
    response = 1 + (boost - 1) * ratio * np.exp(1 - ratio)
    sharp = fft.irfft2(fft.rfft2(wide) * response, wide.shape)[edge:-edge, edge:-edge]
    return _measured(
        image, np.maximum(sharp, np.minimum(filled, anatomy.LOWEST_HU))
    ), mask


def streaks(image, mask, hu, rng) -> Changed:
    """Add nearly horizontal streaks with a standard deviation of `hu`: too few photons.

    They are the back-projection of noise in the projections that pass both shoulders.
    """
    h, w = mask.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    y, x = y - h / 2, x - w / 2
    half = int(np.hypot(h, w) / 2) + 2
    width = STREAK_WIDTH_MM / anatomy.pixel_mm(mask.shape)
    field = np.zeros((h, w), np.float32)
    for angle in np.deg2rad(rng.normal(0, 9, STREAK_ANGLES)):
        white = rng.standard_normal(2 * half + 2)
        profile = -ndimage.gaussian_filter1d(
            white, width, order=2
        )  # like a ramp filter
        at = y * np.cos(angle) + x * np.sin(angle) + half
        field += profile[at.astype(np.int32)]
    inside = anatomy.body(image, mask)
    field *= hu / max(float(field[inside].std()) if inside.any() else 1.0, 1e-6)
    weight = 0.3 + 0.7 * anatomy.soften(inside, 8)
    return _measured(image, image + field * weight), mask


def metal(image, mask, hu, rng) -> Changed:
    """Implant two pieces of metal in the chest wall, with rays of `hu` 20 mm from them."""
    filled = anatomy.fill_padding(image, rng)
    mm = anatomy.pixel_mm(mask.shape)
    inside = anatomy.body(filled, mask)
    room = inside & (anatomy.depth(inside) > 10 / mm) & (anatomy.depth(~mask) > 7 / mm)
    places = np.argwhere(room)
    if not len(places):
        return image, mask
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    artifact = np.zeros(mask.shape, np.float32)
    implants = np.zeros(mask.shape, bool)
    for center in places[rng.integers(len(places), size=2)]:
        distance = mm * np.hypot(y - center[0], x - center[1])
        angle = np.arctan2(y - center[0], x - center[1])
        bins = _ray_profile(rng)
        at = ((angle / np.pi + 1) / 2 * len(bins)).astype(int) % len(bins)
        artifact += hu * bins[at] * 30 / (distance + 10)
        implants |= distance < rng.uniform(3, 6)
    image_with_rays = np.clip(filled + artifact, anatomy.LOWEST_HU, HIGHEST_HU)
    weight = anatomy.soften(implants, 0.7)
    return _measured(image, anatomy.blend(image_with_rays, METAL_HU, weight)), mask


def pad(image, mask, name, rng) -> Changed:
    """Set all that is outside the round field, or outside the body, to a value."""
    field, value = PADDINGS[name]
    h, w = mask.shape
    filled = anatomy.fill_padding(image, rng)
    if field == "round":
        y, x = np.ogrid[:h, :w]
        radius = max(h, w) / 2
        outside = np.hypot(y - (h - 1) / 2, x - (w - 1) / 2) > radius
    else:
        outside = ~anatomy.body(filled, mask)
    return np.where(outside & ~mask, np.float32(value), filled), mask


PADDINGS = {
    "round field, -3024": ("round", -3024),
    "round field, -2000": ("round", -2000),
    "round field, 0": ("round", 0),
    "around the body, -2000": ("body", -2000),
    "around the body, 0": ("body", 0),
}


def _ray_profile(rng: np.random.Generator) -> np.ndarray:
    """Draw the strength of the rays by angle: few broad bands and many fine lines."""
    fine = np.convolve(rng.standard_normal(720), (0.5, 1, 0.5), "same")
    broad = np.repeat(rng.standard_normal(24), 30)
    broad = np.convolve(np.tile(broad, 3), np.ones(30) / 30, "same")[720:1440]
    return (0.5 * fine + 0.8 * broad).astype(np.float32)


def _measured(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Keep the padding of an image."""
    return np.where(anatomy.padding(image), image, changed).astype(np.float32)
