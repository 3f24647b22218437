"""Content of the page of a volume: slices, coronal and sagittal planes, density."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lungseg_jax.inference.contact_sheet import ContactSheet, evenly_spaced
from lungseg_jax.inference.measurements import voxel_ml
from lungseg_jax.inference.overlay import (
    LEFT_OUTLINE,
    OUTLINE,
    draw_outline,
    encode_jpeg,
    gray_bgr,
    resize_to_fit,
    stretch,
)
from lungseg_jax.inference.sides import LEFT, RIGHT

MOST_SLICES = 160  # to scroll through, evenly spaced
SIDE = 384  # of a slice, pixels
PLANES = 4  # in each of the other directions, evenly spaced within the lungs
DENSITY_HU = np.arange(-1024, 160 + 1, 16)  # ends of the bins of the histogram


@dataclasses.dataclass(frozen=True)
class SliceView:
    """A slice to scroll through.

    Attributes:
      k: its index, from feet to head.
      picture: a JPEG file.
      review: whether a person should look at the mask; None if that is unknown.
      reasons: why.
      lung_pixels: the size of the mask.
    """

    k: int
    picture: bytes
    review: bool | None
    reasons: Sequence[str] = ()
    lung_pixels: int = 0


@dataclasses.dataclass(frozen=True)
class VolumeView:
    """What is shown of a volume.

    Attributes:
      name: of the input.
      count: slices of the volume.
      slices: those to scroll through.
      coronal, sagittal: a JPEG file of each plane, from front to back and right to left.
      density: voxels of the right and of the left lung in each bin of DENSITY_HU,
        `[2 bins]`; what is beyond is in the outermost bins. None for values that are not
        Hounsfield units.
      voxels: of the right and of the left lung.
      voxel_ml: the volume of one; None without a geometry.
      to_review: the indices of all slices to review.
    """

    name: str
    count: int
    slices: Sequence[SliceView]
    coronal: Sequence[bytes]
    sagittal: Sequence[bytes]
    density: np.ndarray | None
    voxels: tuple[int, int]
    voxel_ml: float | None
    to_review: Sequence[int]


class VolumeViewer:
    """Collects a view of a volume, slice by slice; memory holds pictures and planes.

    Args:
      sides: uint8 `[n h w]`, the labels of the lungs.
      spacing_mm: between slices, rows and columns; None is taken as cubes.
      window_hu: values shown as black and as white.
      in_hu: whether the values are Hounsfield units, which are densities.
    """

    def __init__(
        self,
        sides: np.ndarray,
        *,
        spacing_mm: tuple[float, float, float] | None,
        window_hu: tuple[float, float],
        in_hu: bool = True,
    ):
        n, h, w = sides.shape
        self._sides, self._spacing_mm = sides, spacing_mm or (1.0, 1.0, 1.0)
        self._voxel_ml = voxel_ml(spacing_mm)
        self._window = window_hu
        self._shown = set(evenly_spaced(n, MOST_SLICES))
        used = sides.any(axis=0)
        self._rows = _evenly_within(used.any(axis=1))
        self._columns = _evenly_within(used.any(axis=0))
        self._coronal = np.zeros((len(self._rows), n, w), np.float32)
        self._sagittal = np.zeros((len(self._columns), n, h), np.float32)
        bins = len(DENSITY_HU) - 1
        self._density = np.zeros((2, bins), np.int64) if in_hu else None
        self._slices: list[SliceView] = []
        self._to_review: list[int] = []

    def add(
        self,
        k: int,
        image: np.ndarray,
        review: bool | None,
        reasons: Sequence[str] = (),
    ) -> None:
        """Add slice `k` `[h w]`, in its original values."""
        sides = self._sides[k]
        self._coronal[:, k] = image[self._rows]
        self._sagittal[:, k] = image[:, self._columns].T
        if self._density is not None:
            inside = np.clip(image, DENSITY_HU[0], DENSITY_HU[-1] - 1)
            for i, side in enumerate((RIGHT, LEFT)):
                self._density[i] += np.histogram(inside[sides == side], DENSITY_HU)[0]
        if review:
            self._to_review.append(k)
        if k in self._shown:
            _, height, width = self._spacing_mm
            square = (stretch(a, height / width) for a in (np.float32(image), sides))
            picture = resize_to_fit(self._draw(*square), SIDE)
            lung_pixels = int(np.count_nonzero(sides))
            self._slices.append(
                SliceView(k, encode_jpeg(picture), review, reasons, lung_pixels)
            )

    def add_planes(self, sheet: ContactSheet) -> None:
        """Add the planes to a sheet of slices, a direction in each row."""
        for title, pictures in (
            ("coronal", self._coronals()),
            ("sagittal", self._sagittals()),
        ):
            sheet.add_row(title, pictures)

    def view(self, name: str, *, right: int, left: int) -> VolumeView:
        """Return the view of all slices added, with the voxels of each lung."""
        return VolumeView(
            name=name,
            count=len(self._sides),
            slices=self._slices,
            coronal=[encode_jpeg(picture) for picture in self._coronals()],
            sagittal=[encode_jpeg(picture) for picture in self._sagittals()],
            density=self._density,
            voxels=(right, left),
            voxel_ml=self._voxel_ml,
            to_review=self._to_review,
        )

    def _draw(self, image: np.ndarray, sides: np.ndarray) -> np.ndarray:
        picture = gray_bgr(image, window_hu=self._window)
        for side, color in ((RIGHT, OUTLINE), (LEFT, LEFT_OUTLINE)):
            picture = draw_outline(picture, sides == side, color)
        return picture

    def _coronals(self) -> list[np.ndarray]:
        sides = self._sides[:, self._rows].swapaxes(0, 1)
        return self._planes(self._coronal, sides, axis=2)

    def _sagittals(self) -> list[np.ndarray]:
        sides = self._sides[:, :, self._columns].transpose(2, 0, 1)
        return self._planes(self._sagittal, sides, axis=1)

    def _planes(self, images, sides, *, axis: int) -> list[np.ndarray]:
        """Draw planes `[p n m]` with the head up and square millimetres."""
        factor = self._spacing_mm[0] / self._spacing_mm[axis]
        return [
            self._draw(stretch(image[::-1], factor), stretch(labels[::-1], factor))
            for image, labels in zip(images, sides, strict=True)
        ]


def _evenly_within(used: np.ndarray) -> np.ndarray:
    """Return PLANES indices between the first and the last that are used, or in all."""
    at = np.flatnonzero(used) if used.any() else np.arange(len(used))
    inner = np.linspace(at[0], at[-1], PLANES + 2)[1:-1]
    return inner.round().astype(int)
