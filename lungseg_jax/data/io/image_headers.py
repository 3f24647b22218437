"""Headers of TIFF and PNG files, parsed before anything is decoded.

A file of a few bytes can make a decoder allocate gigabytes, or hold a hundred thousand
pages. References: TIFF 6.0, sections 2 and 8; BigTIFF, libtiff.gitlab.io/libtiff; PNG,
third edition, section 5.
"""

import dataclasses
import struct
import zlib

MAX_PAGES = 1000

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PALETTE = 3  # a color type
_PNG_CHANNELS = {0: 1, 2: 3, _PNG_PALETTE: 3, 4: 2, 6: 4}  # by color type
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS = 256, 257, 258, 262, 277
_COMPRESSION, _NONE = 259, 1
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_STRIP_ROWS, _ALL_ROWS = 278, 2**32 - 1
_TAGS = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS}
_TAGS |= {_TILE_WIDTH, _TILE_HEIGHT, _STRIP_ROWS}
_WHITE_IS_ZERO, _PALETTE = 0, 3  # values of _PHOTOMETRIC
_VALUE_FORMATS = {3: "H", 4: "I", 16: "Q"}  # by TIFF type: SHORT, LONG, LONG8


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of an image file, as declared; nothing has been decoded.

    Attributes:
      width, height: in pixels, above 0.
      channels: 1 for gray.
      bits: per value.
      pages: images in the file, counted up to `MAX_PAGES`.
      block: width and height of the tile or strip that a TIFF decoder holds at once,
        which may be larger than the image; (0, 0) for a PNG.
      white_is_zero: whether higher values are darker.
      has_palette: whether the pixels are indices of colors, which count as 3 channels.
      compression: that of a TIFF, by its number; 1 is none.
    """

    width: int
    height: int
    channels: int
    bits: int
    pages: int = 1
    block: tuple[int, int] = (0, 0)
    white_is_zero: bool = False
    has_palette: bool = False
    compression: int = _NONE

    @property
    def pixels(self) -> int:
        """Pixels that a decoder allocates: the image, or one block if that is larger."""
        return max(self.width * self.height, self.block[0] * self.block[1])


def read_header(content: bytes) -> Header:
    """Parse the header of a complete TIFF or PNG file.

    Raises:
      ValueError: the content is neither, or is truncated or damaged in its headers; a
        PNG, which has checksums, anywhere.
    """
    try:
        if content.startswith(_PNG):
            header = _parse_png(content)
        elif content[:2] in (b"II", b"MM"):
            header = _parse_tiff(content)
        else:
            raise ValueError("neither TIFF nor PNG")
    except (struct.error, OverflowError) as e:  # an offset beyond the end or any index
        raise ValueError("truncated") from e
    if not header.width or not header.height:
        raise ValueError("no pixels")
    return header


def _parse_png(content: bytes) -> Header:
    view = memoryview(content)  # its slices are not copies
    header, frames, at, chunk = None, 1, len(_PNG), b""
    while chunk != b"IEND":
        length, chunk = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(view[at + 4 : end]) != checksum:
            raise ValueError(f"the checksum of {chunk} is wrong")
        if header is None:
            if (chunk, length) != (b"IHDR", 13):
                raise ValueError("no IHDR at the start")
            width, height, bits, color = struct.unpack_from(">IIBB", content, at + 8)
            if color not in _PNG_CHANNELS:
                raise ValueError(f"color type {color}")
            header = Header(
                width,
                height,
                _PNG_CHANNELS[color],
                bits,
                has_palette=color == _PNG_PALETTE,
            )
        elif chunk == b"acTL":  # an animation
            (frames,) = struct.unpack_from(">I", content, at + 8)
        at = end + 4
    return dataclasses.replace(header, pages=frames)


def _parse_tiff(content: bytes) -> Header:
    order = "<" if content[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 2)
    if version == 42:
        count, offset, start = "H", "I", 4
    elif version == 43:  # BigTIFF
        count, offset, start = "Q", "Q", 8
    else:
        raise ValueError(f"TIFF version {version}")
    entry = struct.Struct(f"{order}HH{offset}{struct.calcsize(offset)}s")
    first, visited = None, set()
    (at,) = struct.unpack_from(order + offset, content, start)
    while first is None or at and len(visited) < MAX_PAGES:
        if at in visited:
            raise ValueError("its directories form a cycle")
        visited.add(at)
        (n,) = struct.unpack_from(order + count, content, at)
        entries = at + struct.calcsize(count)
        end = entries + n * entry.size
        if end > len(content):  # before looping over a damaged n
            raise ValueError("truncated")
        if first is None:
            first = list(entry.iter_unpack(content[entries:end]))
        (at,) = struct.unpack_from(order + offset, content, end)
    return _tiff_header(_parse_tags(first, order), pages=len(visited))


def _tiff_header(tags: dict[int, int], *, pages: int) -> Header:
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    has_palette = tags.get(_PHOTOMETRIC) == _PALETTE
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    rows = tags.get(_STRIP_ROWS, _ALL_ROWS)
    strip = width, 0 if rows == _ALL_ROWS else rows
    return Header(
        width=width,
        height=height,
        channels=3 if has_palette else tags.get(_CHANNELS, 1),
        bits=tags.get(_BITS, 1),
        pages=pages,
        block=max(tile, strip, key=lambda block: block[0] * block[1]),
        white_is_zero=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,
        has_palette=has_palette,
        compression=tags.get(_COMPRESSION, _NONE),
    )


def _parse_tags(entries, order: str) -> dict[int, int]:
    """Return the values of `_TAGS`; a tag that another reader could read otherwise is
    an error."""
    tags: dict[int, int] = {}
    for tag, type_code, count, value in entries:
        if tag not in _TAGS or tag == _BITS and count > 1:  # one for each channel
            continue
        if tag in tags or type_code not in _VALUE_FORMATS or count != 1:
            raise ValueError(f"TIFF tag {tag} is ambiguous")
        (tags[tag],) = struct.unpack_from(order + _VALUE_FORMATS[type_code], value)
    return tags
