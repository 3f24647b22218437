"""The frames of a multi-frame CT file, each of them a slice.

GDCM takes the distance of the first two frames, and the rescaling of the first, for those
of all, so frames are read by pydicom. Reference: DICOM PS3.3, A.38 and C.7.6.16.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGExtended12Bit

from lungseg_jax.data.io.dicom_errors import damaged, unsupported_compression
from lungseg_jax.data.io.dicom_slice import (
    INTERCEPT,
    ORIENTATION,
    PIXEL_SPACING,
    POSITION,
    SLOPE,
    THICKNESS,
    DicomSlice,
)

_GROUPS = {  # by tag: the functional group that has it
    PIXEL_SPACING: "PixelMeasuresSequence",
    THICKNESS: "PixelMeasuresSequence",
    POSITION: "PlanePositionSequence",
    ORIENTATION: "PlaneOrientationSequence",
    SLOPE: "PixelValueTransformationSequence",
    INTERCEPT: "PixelValueTransformationSequence",
}


class DicomFrame(DicomSlice):
    """One frame of a file, whose pixels are not read yet.

    Args:
      whole: the file.
      frame: its number, from 0.
      groups: the functional groups of this frame and those shared by all.
    """

    def __init__(
        self, whole: DicomSlice, frame: int, groups: Sequence[pydicom.Dataset]
    ):
        self.file, self._reader = whole.file, whole._reader
        self._frame, self._groups = frame, groups
        self.size = (*whole.size[:2], 1)
        rows, columns = self._numbers(PIXEL_SPACING, 2)
        # 0 mm is not a distance, and NaN is not what is stated: it will be refused.
        self.spacing = (columns or np.nan, rows or np.nan, 1.0)
        self.origin = self._numbers(POSITION, 3)
        self.direction = _orthonormal(*self._numbers(ORIENTATION, 6).reshape(2, 3))

    @property
    def name(self) -> str:
        return f"frame {self._frame + 1} of {self.file}"

    @property
    def short_name(self) -> str:
        return f"frame {self._frame + 1} of {self.file.name}"

    @property
    def frame(self) -> int:
        return self._frame

    def get_tag(self, tag: str) -> str | None:
        if tag not in _GROUPS:
            return super().get_tag(tag)
        for group in self._groups:
            for item in group.get(_GROUPS[tag]) or ():
                if (text := _text(item, tag)) is not None:
                    return text
        # Rescaling is also where single slices have it; a place there would be of no frame.
        return super().get_tag(tag) if tag in (SLOPE, INTERCEPT) else None

    def _numbers(self, tag: str, count: int) -> np.ndarray:
        """Return the values of an element, which are NaN if there are not so many."""
        try:
            numbers = np.array((self.get_tag(tag) or "").split("\\"), float)
        except ValueError:
            numbers = np.array([])
        return numbers if len(numbers) == count else np.full(count, np.nan)

    def _check_pixels(self) -> None:
        """Do nothing: `split_frames` has checked those of all frames."""

    @classmethod
    def iter_voxels(cls, slices: Sequence["DicomFrame"]) -> Iterator[np.ndarray]:
        file = slices[0].file
        pixels = iter_pixels(file, indices=[frame.frame for frame in slices])
        for frame in slices:
            try:
                with warnings.catch_warnings(action="ignore"):
                    values = next(pixels).astype(np.float32)
            except Exception as e:  # its decoders raise whatever they meet
                reason = [*str(e).splitlines(), type(e).__name__][0][:120]
                raise damaged(file, f"its pixels cannot be decoded ({reason})") from e
            yield frame._rescale(values)[None]

    def _rescale(self, stored: np.ndarray) -> np.ndarray:
        slope, intercept = self.get_tag(SLOPE) or 1, self.get_tag(INTERCEPT) or 0
        return stored * np.float32(slope) + np.float32(intercept)


def split_frames(whole: DicomSlice) -> Sequence[DicomFrame]:
    """Return the frames of a file of Enhanced CT, in its order.

    Raises:
      UserError: the file is damaged, or compressed in an unsupported way.
    """
    file, count = whole.file, whole.size[2]
    try:
        with warnings.catch_warnings(action="ignore"):
            # What is long, such as the pixels, is left in the file.
            header = pydicom.dcmread(file, defer_size="10 KB", force=True)
            is_decoded = _is_decoded(header.file_meta.TransferSyntaxUID)
            shared = list(header.get("SharedFunctionalGroupsSequence") or ())
            own = list(header.get("PerFrameFunctionalGroupsSequence") or ())
            frames = [DicomFrame(whole, k, [g, *shared]) for k, g in enumerate(own)]
            length = getattr(header.get_item("PixelData"), "length", 0)
    except Exception as e:  # its parser raises whatever it meets
        raise damaged(file, "its frames are not described") from e
    if len(own) != count:
        raise damaged(file, f"it describes {len(own)} of {count} frames")
    if not is_decoded:
        raise unsupported_compression(file, header.file_meta.TransferSyntaxUID)
    whole.check_lengths([length])
    return frames


def _is_decoded(syntax: str) -> bool:
    if syntax in (DeflatedExplicitVRLittleEndian, JPEGExtended12Bit):
        return False
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _text(item: pydicom.Dataset, tag: str) -> str | None:
    """Return an element as it is written: pydicom refuses some invalid numbers."""
    element = item.get_item(tuple(int(half, 16) for half in tag.split("|")))
    if element is None or element.value is None:
        return None
    value = element.value
    if isinstance(value, bytes):  # as read
        return value.decode("latin-1").strip(" \0")
    values = [value] if isinstance(value, str | float) else value
    return "\\".join(map(str, values))


def _orthonormal(rows: np.ndarray, columns: np.ndarray) -> tuple[float, ...]:
    """Return directions of length 1 at right angles, and their normal, as `Geometry` does.

    They are those stated if these are valid.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = rows / np.linalg.norm(rows)
        columns = columns - columns @ rows * rows
        columns = columns / np.linalg.norm(columns)
    axes = np.stack([rows, columns, np.cross(rows, columns)])
    return tuple(axes.T.ravel().tolist())
