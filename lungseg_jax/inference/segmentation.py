"""The segmentation of slices: their mask, and how far to trust it."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lungseg_jax.inference.outputs import MAPS
from lungseg_jax.runtime.errors import UserError, unknown_name

IMAGES = ("mask", *MAPS)  # fields of a `Segmentation` with a value for each pixel


@dataclasses.dataclass(frozen=True, eq=False)  # == on arrays has no single truth value
class Segmentation:
    """The segmentation of a slice `[h w]`, or of several of equal size `[n h w]`.

    Attributes:
      mask: `[... h w]` bool, lung: the pixels where the members' mean probability exceeds
        the threshold of the run, after clean-up.
      probability: `[... h w]` float32, probability of lung; calibrated if the run had a
        validation split. The threshold applies to the mean before calibration; only a
        threshold of 0.5 is the same after it.
      uncertainty: `[... h w]` float32, entropy of `probability` in bits, from 0 to 1.
      mutual_information: `[... h w]` float32, disagreement of the members before
        calibration, in bits; 0 for a single member.
      expected_iou: float or `[n]`, estimate of the IoU of a slice's mask from its
        probabilities. In a volume, the mask before it was cleaned in three dimensions.
      disagreement: float or `[n]`, fraction of the pixels called lung by any member that
        are not called lung by all of them.
      review: bool or `[n]`, whether a person should review the mask, because its expected
        IoU is below the limit chosen on the validation split. None without such a split.
        In a scan, also because of its anatomy, see `review`.
      make_image: `[n h w]` -> an image like the scan; None for an array.
    """

    mask: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray
    mutual_information: np.ndarray
    expected_iou: float | np.ndarray
    disagreement: float | np.ndarray
    review: bool | np.ndarray | None
    make_image: Callable[[np.ndarray], Any] | None = None

    def to_image(self, name: str = "mask") -> Any:
        """Return a field as an image with the geometry of the scan.

        It is an image of nibabel if the scan was one, otherwise one of SimpleITK; of
        uint8 for the mask, of float32 for the others.

        Args:
          name: "mask", "probability", "uncertainty" or "mutual_information".

        Raises:
          UserError: the name is unknown, or an array was segmented: it has no geometry.
        """
        if name not in IMAGES:
            raise unknown_name("image", name, IMAGES)
        if self.make_image is None:
            raise UserError(
                "an array has no geometry.",
                rule="to_image is for scans: a path to a volume or a DICOM series, or an "
                "image of SimpleITK or nibabel.",
            )
        values = getattr(self, name)
        return self.make_image(values.astype(np.uint8) if name == "mask" else values)


def stack(segmentations: Iterable[Segmentation], count: int) -> Segmentation:
    """Stack the segmentations of `count` slices `[h w]` along a leading axis n.

    Each is copied as it comes: a list of them would take the memory a second time.
    """
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Segmentation))
    for k, segmentation in enumerate(segmentations):
        for name in fields:
            if (value := getattr(segmentation, name)) is None:
                continue
            if fields[name] is None:
                value = np.asarray(value)
                fields[name] = np.empty((count, *value.shape), value.dtype)
            fields[name][k] = value
    return Segmentation(**fields)
