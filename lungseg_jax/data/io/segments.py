"""The segments of a mask, as formats that name them store them."""

import dataclasses
from pathlib import Path

DICOM_SEGMENTATION = ".dcm"  # the end of its name


@dataclasses.dataclass(frozen=True)
class Segment:
    """A structure that a mask shows.

    Attributes:
      value: of its voxels.
      name: for people.
      code: of the structure in SNOMED CT.
      color: red, green and blue, 0 to 255, in which viewers draw it.
    """

    value: int
    name: str
    code: str
    color: tuple[int, int, int]


ANATOMY = ("123037004", "Anatomical Structure")  # the category of all, in SNOMED CT
LUNG = Segment(1, "Lung", "39607008", (197, 165, 145))
RIGHT_LUNG = Segment(1, "Right lung", "3341006", (224, 97, 76))
LEFT_LUNG = Segment(2, "Left lung", "44029006", (98, 153, 216))


def is_dicom_segmentation(path: Path) -> bool:
    """Return whether an output is a DICOM segmentation, by its name."""
    return path.name.lower().endswith(DICOM_SEGMENTATION)
