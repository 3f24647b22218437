"""The elements of a DICOM file that hold pixels, found in its bytes.

GDCM does not say how many bytes they have. Reference: DICOM PS3.5, section 7.
"""

import contextlib
import re
import zlib
from pathlib import Path

from lungseg_jax.data.io.dicom_errors import damaged, errors_of
from lungseg_jax.data.io.images import MAX_PIXELS

# Element (7FE0,0010) and its length, by byte order; implicit VR is always little endian.
_PIXELS = {
    "little": re.compile(rb"\xe0\x7f\x10\0(?:(?:OB|OW|UN)\0\0)?(.{4})", re.DOTALL),
    "big": re.compile(rb"\x7f\xe0\0\x10(?:OB|OW|UN)\0\0(.{4})", re.DOTALL),
}
# Elements (0002,0000), the length of the rest of this group, and (0002,0010), the transfer
# syntax: here that of files whose other elements are deflated.
_META_LENGTH = re.compile(rb"\x02\0\0\0UL\x04\0(.{4})", re.DOTALL)
_IS_DEFLATED = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
_MAX_INFLATED = 4 * MAX_PIXELS  # bytes


def pixel_lengths(file: Path) -> list[int]:
    """Return the lengths in bytes of the elements with pixels: icons, then the image.

    Raises:
      UserError: the file cannot be read, or inflated.
    """
    elements = _read_elements(file)
    return [
        int.from_bytes(match[1], order)
        for order, pattern in _PIXELS.items()
        for match in pattern.finditer(elements)
    ]


def _read_elements(file: Path) -> bytes:
    """Return the content of the file, or its inflated elements if it is deflated."""
    with errors_of(file):
        content = file.read_bytes()
    if _IS_DEFLATED not in content[:1024]:
        return content
    length = _META_LENGTH.search(content)
    start = length.end() + int.from_bytes(length[1], "little") if length else 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with contextlib.suppress(zlib.error):
        elements = inflater.decompress(content[start:], _MAX_INFLATED)
    if not inflater.eof:
        raise damaged(file, "it cannot be inflated to its end")
    return elements
