"""The pictures of a volume: a contact sheet of slices and planes, and what a page shows."""

from collections.abc import Mapping

import numpy as np

from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.inference.confidence import Confidence
from lungseg_jax.inference.contact_sheet import ContactSheet
from lungseg_jax.inference.overlay import overlay, stretch
from lungseg_jax.inference.volume_mask import VolumeMask
from lungseg_jax.inference.volume_view import VolumeView, VolumeViewer


class VolumePictures:
    """Draws the pictures of a volume, slice by slice.

    Args:
      volume: the volume.
      lungs: its mask.
      sheet: an empty sheet of its slices.
      uncertainty: `[h w]` of each slice that the sheet includes.
      window_hu: values shown as black and as white.
      in_hu: whether the values are Hounsfield units.
    """

    def __init__(
        self,
        volume: Volume,
        lungs: VolumeMask,
        sheet: ContactSheet,
        uncertainty: Mapping[int, np.ndarray],
        *,
        window_hu: tuple[float, float],
        in_hu: bool,
    ):
        self._volume, self._lungs = volume, lungs
        self._sheet, self._uncertainty = sheet, uncertainty
        self._window_hu = window_hu
        self._viewer = VolumeViewer(
            lungs.sides,
            spacing_mm=volume.spacing_mm,
            window_hu=window_hu,
            in_hu=in_hu,
        )

    def add(self, k: int, image: np.ndarray, confidence: Confidence) -> None:
        """Draw slice `k` `[h w]`, in its original values."""
        self._viewer.add(k, image, confidence.review, confidence.reasons)
        if self._sheet.includes(k):
            mask = self._lungs.mask[k].astype(bool)
            picture = overlay(
                image, mask, self._uncertainty[k], window_hu=self._window_hu
            )
            picture = stretch(picture, self._volume.aspect)
            text = f"{k} review" if confidence.review else f"{k}"
            self._sheet.add(picture, text)

    def finish(self, name: str) -> tuple[np.ndarray, VolumeView]:
        """Return the sheet `[h w 3]` and the view of all slices added.

        Args:
          name: of the input.
        """
        self._viewer.add_planes(self._sheet)
        lungs = self._lungs
        view = self._viewer.view(name, right=lungs.right, left=lungs.left)
        return self._sheet.picture(), view
