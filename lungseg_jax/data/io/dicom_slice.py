"""A DICOM file with one slice of a CT scan."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io.dicom_errors import damaged, errors_of
from lungseg_jax.data.io.dicom_pixels import pixel_lengths
from lungseg_jax.data.io.images import MAX_PIXELS
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import require_utf8

PIXEL_SPACING, POSITION, ORIENTATION = "0028|0030", "0020|0032", "0020|0037"
SLOPE, INTERCEPT = "0028|1053", "0028|1052"
_PLACEMENT = {  # by tag: a name, and what it consists of
    PIXEL_SPACING: ("pixel spacing", "the distances of rows and columns, above 0 mm."),
    POSITION: ("position", "three coordinates, in mm."),
    ORIENTATION: (
        "orientation",
        "the directions of rows and columns, orthogonal and of length 1.",
    ),
}
_ROUNDING = 0.01  # GDCM normalizes directions
THICKNESS, PHOTOMETRIC = "0018|0050", "0028|0004"
BITS_ALLOCATED, BITS_STORED, HIGH_BIT = "0028|0100", "0028|0101", "0028|0102"
_RESCALING = {  # by tag: a name, and what it is
    SLOPE: ("Slope", "a number other than 0."),
    INTERCEPT: ("Intercept", "a number, such as -1024."),
}
_UNDEFINED = 2**32 - 1  # the length of compressed pixels
CLASS, IMAGE_TYPE, MODALITY = "0008|0016", "0008|0008", "0008|0060"
_ENHANCED = (  # CT of several frames: new, and converted from single slices
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its variants for several frames


class DicomSlice:
    """A DICOM file with an image, whose pixels are not read yet."""

    def __init__(self, file: Path):
        self.file = file
        self._reader = sitk.ImageFileReader()
        self._reader.SetImageIO("GDCMImageIO")
        self._reader.SetFileName(require_utf8(file))
        with errors_of(file):
            self._reader.ReadImageInformation()
        self.size = self._reader.GetSize()
        self.spacing = self._reader.GetSpacing()
        self.origin = np.array(self._reader.GetOrigin())
        self.direction = self._reader.GetDirection()

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.file)

    @property
    def short_name(self) -> str:
        """For messages that name the folder."""
        return self.file.name

    @property
    def frame(self) -> int:
        """Its number in the file, from 0."""
        return 0

    def get_tag(self, tag: str) -> str | None:
        """Return an element as text, or None if the file lacks it."""
        if not self._reader.HasMetaDataKey(tag):
            return None
        return self._reader.GetMetaData(tag).strip()

    @property
    def is_enhanced(self) -> bool:
        """Whether its frames are slices of known place and values."""
        return self.get_tag(CLASS) in _ENHANCED

    def other_content(self) -> str:
        """Say what the file shows if it is not a slice of a CT scan; "" if it is one."""
        modality = self.get_tag(MODALITY) or "CT"
        if modality != "CT":
            return f"modality {modality}, not CT"
        if f"{self.get_tag(CLASS)}.".startswith(f"{SECONDARY_CAPTURE}."):
            return "secondary capture"
        types = (self.get_tag(IMAGE_TYPE) or "").split("\\")
        return "localizer" if "LOCALIZER" in map(str.strip, types) else ""

    def check(self) -> None:
        """Refuse a file that cannot be part of a volume.

        Raises:
          UserError: it is not a gray slice of plausible size with a known placement.
        """
        components = self._reader.GetNumberOfComponents()
        if len(self.size) != 3 or components != 1:
            raise UserError(
                f"{self.name} has {components} values per pixel.",
                rule="CT slices are gray.",
                remedy="leave it out, or export it again in gray.",
            )
        if self.size[2] != 1:
            raise UserError(
                f"{self.name} has {self.size[2]} frames.",
                rule="one slice per DICOM file, or Enhanced CT.",
                remedy="convert it to NIfTI first, for example with dcm2niix.",
            )
        if self.get_tag(PHOTOMETRIC) == "MONOCHROME1":
            raise UserError(
                f"{self.name} is MONOCHROME1: its values are inverted.",
                rule="CT slices are MONOCHROME2.",
                remedy="export the series again, or convert it to NIfTI first.",
            )
        if not 0 < self.size[0] * self.size[1] <= MAX_PIXELS:
            raise UserError(
                f"{self.name} declares {self.size[0]} x {self.size[1]} pixels.",
                rule=f"at most {MAX_PIXELS}.",
                remedy="if it is not really that large, the file is damaged.",
            )
        self._check_bits()
        self._check_pixels()
        self._check_rescaling()
        self._check_placement()

    def _check_bits(self) -> None:
        """Refuse values that are not in the lowest bits of a word: GDCM cuts them off."""
        stored, high = (self.get_tag(tag) or "" for tag in (BITS_STORED, HIGH_BIT))
        are_stated = stored.isdecimal() and high.isdecimal()
        if are_stated and int(high) != int(stored) - 1:
            raise UserError(
                f"{self.name} states a High Bit (0028,0102) of {high} with {stored} Bits "
                "Stored (0028,0101).",
                rule="in a CT slice, High Bit is one less than Bits Stored.",
                remedy="export the series again, or convert it to NIfTI first.",
            )

    def _check_pixels(self) -> None:
        self.check_lengths(pixel_lengths(self.file))

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Refuse another number of bytes than declared: the rest would be left to chance.

        Some writers pad the pixels, by less than a row.

        Args:
          lengths: of the elements with pixels; other ones than the last are of icons.

        Raises:
          UserError: none of them is as long as the pixels.
        """
        stated = self.get_tag(BITS_ALLOCATED) or ""
        bits = int(stated) if stated.isdecimal() else 0
        needed = -(-math.prod(self.size) * bits // 8)
        row = max(self.size[0] * bits // 8, 2)
        is_complete = any(
            length == _UNDEFINED or needed <= length < needed + row
            for length in lengths
        )
        if bits and not is_complete:
            actual = lengths[-1] if lengths else 0
            raise damaged(self.file, f"it has {actual} of {needed} bytes of pixels")

    def _check_rescaling(self) -> None:
        """Refuse what is not a number: GDCM takes 1 or 0 instead, without a warning."""
        for tag, (name, rule) in _RESCALING.items():
            text = self.get_tag(tag)
            try:
                number = float(text or 1)  # not stated: valid
            except ValueError:
                number = math.nan
            if not math.isfinite(number) or number == 0 and name == "Slope":
                raise UserError(
                    f"{self.name} states an invalid Rescale {name} "
                    f"({tag.replace('|', ',')}): {text}.",
                    rule=rule,
                    remedy="export the series again, or convert it to NIfTI and scale it.",
                )

    def _check_placement(self) -> None:
        """Refuse a placement that ITK does not use: it assumes one, without a warning."""
        rows, columns, _ = np.reshape(self.direction, (3, 3)).T
        # GDCM replaces a spacing of 0, but keeps a negative one, which is just as wrong.
        distances = np.abs(self.spacing[1::-1])
        used = distances, self.origin, np.concatenate([rows, columns])
        for (tag, (name, rule)), values in zip(_PLACEMENT.items(), used, strict=True):
            text, name = self.get_tag(tag), f"{name} ({tag.replace('|', ',')})"
            if not text:
                raise UserError(
                    f"{self.name} does not state its {name}.",
                    rule="a CT slice states its place in the patient.",
                    remedy="export the series again with these elements.",
                )
            try:
                stated = np.array(text.split("\\"), float)
            except ValueError:
                stated = np.array([])
            is_valid = stated.shape == values.shape and np.isfinite(stated).all()
            if not is_valid or not np.allclose(stated, values, atol=_ROUNDING):
                raise UserError(
                    f"{self.name} states an invalid {name}: {text}.",
                    rule=rule,
                    remedy="export the series again, or remove the damaged file.",
                )

    @property
    def thickness(self) -> float:
        """In mm; 1 if the file does not state a length."""
        try:
            stated = float(self.get_tag(THICKNESS) or 1.0)
        except ValueError:
            return 1.0
        return stated if 0 < stated < math.inf else 1.0

    @property
    def position(self) -> float:
        """In mm along the normal."""
        return float(self.origin @ self.normal)

    @property
    def normal(self) -> np.ndarray:
        """The direction from this slice to the next one."""
        return np.reshape(self.direction, (3, 3))[:, 2]

    @property
    def is_axial(self) -> bool:
        """Whether the plane of the slice is nearer to axial than to any other."""
        return int(np.abs(self.normal).argmax()) == 2

    @classmethod
    def iter_voxels(cls, slices: Sequence["DicomSlice"]) -> Iterator[np.ndarray]:
        """Read slices `[1 y x]` of one file, float32.

        They are in Hounsfield units if slope and intercept are given.

        Raises:
          UserError: the file cannot be decoded.
        """
        for dicom_slice in slices:
            with errors_of(dicom_slice.file):
                image = dicom_slice._reader.Execute()
            yield sitk.GetArrayFromImage(image).astype(np.float32)
