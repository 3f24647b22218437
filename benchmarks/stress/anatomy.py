"""What a change has to know about a slice: its scale, air, body and lungs.

Images are float32 `[h w]` in Hounsfield units, masks bool `[h w]`.
"""

import cv2
import numpy as np
from scipy import ndimage

PIXEL_MM = 0.7  # of a slice of 512 pixels; the Kaggle slices do not say theirs
AIR_HU, LOWEST_HU = -1000, -1024
PADDING_HU = -1200  # pixels below this were not measured
AERATED_HU = -500


def pixel_mm(shape: tuple[int, int]) -> float:
    """Return the assumed size of a pixel: slices of any matrix show the same field."""
    return PIXEL_MM * 512 / max(shape)


def padding(image: np.ndarray) -> np.ndarray:
    """Return the pixels outside the field of measurement."""
    return image < PADDING_HU


def room_air(image: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the air around the body."""
    low = image[(image > PADDING_HU) & (image < -850)]
    if len(low) < 50:
        return AIR_HU, 10.0
    median = np.median(low)
    return float(median), float(1.4826 * np.median(abs(low - median)))


def air(
    image: np.ndarray, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw air like that of an image."""
    mean, std = room_air(image)
    return (mean + std * fine_noise(shape, rng)).astype(np.float32)


def fill_padding(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace what was not measured by air."""
    return np.where(padding(image), air(image, image.shape, rng), image)


def body(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the patient, lungs included, without the couch."""
    solid = cv2.GaussianBlur(image, (0, 0), 1.0) > -350
    radius = max(1, round(4 / pixel_mm(mask.shape)))  # clothes and the couch are thin
    solid = cv2.morphologyEx(
        (solid | mask).astype(np.uint8), cv2.MORPH_OPEN, disk(radius)
    )
    return ndimage.binary_fill_holes(largest(solid > 0) | mask)


def largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected region; of an empty mask, the mask."""
    labels, stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[1:3]
    if len(stats) < 2:
        return mask
    return labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])


def one_lung(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose one lung: a half of the mask, by the column of its center.

    Halves are cleaner than connected regions: lungs may touch, or be cut by a vessel.
    """
    halves = [half for half in _halves(mask) if half.sum() > 0.2 * mask.sum()]
    return largest(halves[rng.integers(len(halves))]) if halves else mask


def larger_lung(mask: np.ndarray) -> np.ndarray:
    """Return the largest region or, if it is wider than high, the larger half of it.

    Lungs that touch are one region. A lung is higher than wide. An empty mask is returned.
    """
    if not mask.any():
        return mask
    region = largest(mask)
    rows, columns = box(region)
    is_both = columns.stop - columns.start > rows.stop - rows.start
    return max(_halves(region), key=np.count_nonzero) if is_both else region


def _halves(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns = np.arange(mask.shape[1])
    inside = np.nonzero(mask.any(axis=0))[0]
    middle = (inside[0] + inside[-1]) / 2 if len(inside) else 0
    return mask & (columns < middle), mask & (columns >= middle)


def box(mask: np.ndarray, margin: float = 0.0) -> tuple[slice, slice]:
    """Return the bounding box of a mask, widened by `margin` pixels inside the frame."""
    slices = []
    for axis, size in enumerate(mask.shape):
        where = np.nonzero(mask.any(axis=1 - axis))[0]
        low, high = (where[0], where[-1] + 1) if len(where) else (0, size)
        slices.append(
            slice(max(0, round(low - margin)), min(size, round(high + margin)))
        )
    return tuple(slices)


def depth(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel of a mask to its edge, in pixels."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)


def soften(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Return a weight from 0 to 1 with an edge of about `pixels`."""
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(0.3, pixels))


def _white_noise(shape, rng) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def fine_noise(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw noise of unit variance with the short correlation of reconstructed CT."""
    noise = rng.standard_normal(shape, np.float32)
    return _normalize(cv2.GaussianBlur(noise, (0, 0), 0.6))


def smooth_noise(
    shape: tuple[int, int], pixels: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw noise of unit variance whose blobs are about `pixels` wide."""
    h, w = (max(4, round(size / pixels) + 3) for size in shape)
    coarse = rng.standard_normal((h, w), np.float32)
    return _normalize(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC))


def tissue(
    image: np.ndarray, hu: float, rng: np.random.Generator, *, texture: float = 12
) -> np.ndarray:
    """Draw soft tissue with the noise of an image and a coarser texture."""
    shape = image.shape
    coarse = smooth_noise(shape, 8 / pixel_mm(shape), rng)
    return hu + texture * coarse + noise_like(image, rng)


def noise_like(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw noise with the strength of that in the soft tissue of an image.

    It is white where that of the image is, as in the Kaggle slices, and otherwise
    correlated as usual.
    """
    rough = image - cv2.GaussianBlur(image, (0, 0), 2.0)
    is_tissue = (cv2.GaussianBlur(image, (0, 0), 1.0) > -150) & (image < 250)
    inside = rough * (depth(is_tissue) > 3)
    count = np.count_nonzero(inside)
    if count < 50:
        return 15 * fine_noise(image.shape, rng)
    variance = float((inside**2).sum()) / count
    neighbors = float((inside[:, 1:] * inside[:, :-1]).sum()) / count
    is_white = neighbors < 0.2 * variance
    draw = _white_noise if is_white else fine_noise
    return np.sqrt(variance) * draw(image.shape, rng)


def parenchyma_hu(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the median of the aerated lung."""
    values = image[mask & (image < AERATED_HU)]
    return float(np.median(values)) if len(values) else -800.0


def disk(radius: int) -> np.ndarray:
    """Return a structuring element."""
    return cv2.getStructuringElement(
        cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)
    )


def blend(image: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return `image` where the weight is 0 and `other` where it is 1."""
    return (image + weight * (other - image)).astype(np.float32)


def _normalize(noise: np.ndarray) -> np.ndarray:
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)
