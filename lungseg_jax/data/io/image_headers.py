"""What a TIFF or PNG file says of itself, read before anything is decoded.

A file of a few bytes can ask a decoder for gigabytes, or hold a hundred thousand pages.
References: TIFF 6.0, sections 2 and 8; BigTIFF, libtiff.gitlab.io/libtiff; PNG, third
edition, section 5.
"""

import dataclasses
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; 3 has a palette
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS = 256, 257, 258, 262, 277
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_STRIP_ROWS, _ALL_ROWS = 278, 2**32 - 1
_PALETTE = 3  # a value of _PHOTOMETRIC
_FORMATS = {3: "H", 4: "I", 16: "Q"}  # of a tag's one value: SHORT, LONG, LONG8


@dataclasses.dataclass(frozen=True)
class Header:
    """A picture in its own words: nothing here has been decoded.

    Attributes:
      width, height: in pixels, above 0.
      channels: 1 is gray.
      bits: of one value.
      pages: pictures in the file; counted up to `MOST_PAGES`.
      block: width and height of what is decoded at once of a TIFF, a tile or a strip,
        which may be larger than the picture; (0, 0) of a PNG.
    """

    width: int
    height: int
    channels: int
    bits: int
    pages: int = 1
    block: tuple[int, int] = (0, 0)

    @property
    def pixels(self) -> int:
        """What a decoder holds: the picture, or one block if that is more."""
        return max(self.width * self.height, self.block[0] * self.block[1])


MOST_PAGES = 1000


def read_header(content: bytes) -> Header:
    """The header of a whole TIFF or PNG file.

    Raises:
      ValueError: neither of the two, cut short, or damaged where the header is; of a PNG,
        which has checksums, anywhere.
    """
    try:
        if content.startswith(_PNG):
            header = _png(content)
        elif content[:2] in (b"II", b"MM"):
            header = _tiff(content)
        else:
            raise ValueError("neither TIFF nor PNG")
    except (struct.error, OverflowError) as e:  # an offset beyond the end, or any index
        raise ValueError("cut short") from e
    if not header.width or not header.height:
        raise ValueError("no pixels")
    return header


def _png(content: bytes) -> Header:
    view = memoryview(content)  # slices of it are not copies
    header, frames, at, kind = None, 1, len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(view[at + 4 : end]) != checksum:
            raise ValueError(f"the checksum of {kind} is wrong")
        if header is None:
            if (kind, length) != (b"IHDR", 13):
                raise ValueError("no IHDR at the start")
            width, height, bits, colour = struct.unpack_from(">IIBB", content, at + 8)
            if colour not in _PNG_CHANNELS:
                raise ValueError(f"colour type {colour}")
            header = Header(width, height, _PNG_CHANNELS[colour], bits)
        elif kind == b"acTL":  # an animation
            (frames,) = struct.unpack_from(">I", content, at + 8)
        at = end + 4
    return dataclasses.replace(header, pages=frames)


def _tiff(content: bytes) -> Header:
    order = "<" if content[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", content, 2)
    if version == 42:
        count, offset, start = "H", "I", 4
    elif version == 43:  # BigTIFF
        count, offset, start = "Q", "Q", 8
    else:
        raise ValueError(f"TIFF version {version}")
    entry = struct.Struct(f"{order}HH{offset}{struct.calcsize(offset)}s")
    first, seen = None, set()
    (at,) = struct.unpack_from(order + offset, content, start)
    while first is None or at and len(seen) < MOST_PAGES:
        if at in seen:
            raise ValueError("its directories go in a circle")
        seen.add(at)
        (n,) = struct.unpack_from(order + count, content, at)
        entries = at + struct.calcsize(count)
        end = entries + n * entry.size
        if end > len(content):  # before a loop over what a damaged n says
            raise ValueError("cut short")
        if first is None:
            first = list(entry.iter_unpack(content[entries:end]))
        (at,) = struct.unpack_from(order + offset, content, end)
    tags = _tags(first, order)
    palette = tags.get(_PHOTOMETRIC) == _PALETTE
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    rows = tags.get(_STRIP_ROWS, _ALL_ROWS)
    strip = tags.get(_WIDTH, 0), 0 if rows == _ALL_ROWS else rows
    return Header(
        width=tags.get(_WIDTH, 0),
        height=tags.get(_HEIGHT, 0),
        channels=3 if palette else tags.get(_CHANNELS, 1),
        bits=tags.get(_BITS, 1),
        pages=len(seen),
        block=max(tile, strip, key=lambda block: block[0] * block[1]),
    )


def _tags(entries, order: str) -> dict[int, int]:
    """The values of the tags that are read here; no other reader may see others."""
    known = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS}
    known |= {_TILE_WIDTH, _TILE_HEIGHT, _STRIP_ROWS}
    tags: dict[int, int] = {}
    for tag, kind, count, value in entries:
        if tag not in known or tag == _BITS and count > 1:  # one for each channel
            continue
        if tag in tags or kind not in _FORMATS or count != 1:
            raise ValueError(f"TIFF tag {tag} is ambiguous")
        (tags[tag],) = struct.unpack_from(order + _FORMATS[kind], value)
    return tags
