"""An input of a prediction with the files to write for it, and how they are named."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lungseg_jax.data.io.formats import SLICE, kind_of, split_suffix
from lungseg_jax.data.io.segments import DICOM_SEGMENTATION, is_dicom_segmentation
from lungseg_jax.inference.outputs import MAPS

OVERLAY = "overlay"
# Maps and overlays are named like their mask, with one of these at the end of the stem.
COMPANION_ENDINGS = tuple(f"_{name}" for name in (*MAPS, OVERLAY))
MAP_SUFFIXES = {".seg.nrrd": ".nrrd", DICOM_SEGMENTATION: ".nii.gz"}  # by that of masks


@dataclasses.dataclass(frozen=True)
class PredictionTask:
    """An input and the files to write for it.

    Attributes:
      source: a file, or the folder of a DICOM series.
      target: the file of the mask.
      is_volume: whether it is read and written slice by slice.
      series: UID of the DICOM series to read; "" if there is only one.
      overlay: the picture of the mask on the image, or None.
      page: the page of a volume, or None.
      maps: further images, by the field of `Segmentation` that they hold.
    """

    source: Path
    target: Path
    is_volume: bool
    series: str = ""
    overlay: Path | None = None
    page: Path | None = None
    maps: Mapping[str, Path] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The input, as results name it."""
        return f"{self.source} {self.series}" if self.series else str(self.source)

    @property
    def outputs(self) -> list[Path]:
        views = [path for path in (self.overlay, self.page) if path]
        return [self.target, *self.maps.values(), *views]

    def with_companions(
        self, maps: Sequence[str], *, overlay: bool
    ) -> "PredictionTask":
        """Return the task with maps and an overlay beside its mask."""
        stem, suffix = split_target(self.target)
        # Maps are float32, which a PNG cannot store.
        slice_or_volume = ".tif" if kind_of(self.target) == SLICE else suffix
        suffix = MAP_SUFFIXES.get(suffix, slice_or_volume)
        beside, shows_page = self.target.with_name, overlay and self.is_volume
        return dataclasses.replace(
            self,
            maps={name: beside(f"{stem}_{name}{suffix}") for name in maps},
            overlay=beside(f"{stem}_{OVERLAY}.png") if overlay else None,
            page=beside(f"{stem}_{OVERLAY}.html") if shows_page else None,
        )


def split_target(target: Path) -> tuple[str, str]:
    """Split the name of an output as `split_suffix` does, and that of a DICOM file."""
    if is_dicom_segmentation(target):
        return re.sub(r"(?i)(\.seg)?\.dcm$", "", target.name), DICOM_SEGMENTATION
    return split_suffix(target)
