"""What a NIfTI-1 header says, where SimpleITK does not pass it on as it stands.

Reference: nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

import struct

import numpy as np

HEADER, HEADER_2 = 348, 540  # bytes, which NIfTI-1 and NIfTI-2 begin with
_BITS, _PIXDIM, _OFFSET, _UNITS, _QFORM = 72, 76, 108, 123, 252
_FLOATS = {16: "f4", 64: "f8"}  # by the code at 70
_DATATYPE = 70


def byte_order(header: bytes) -> str | None:
    """ "<" or ">" of `struct`; None where it is no header of NIfTI-1."""
    for order in "<>":
        whole = len(header) >= HEADER
        if whole and struct.unpack_from(f"{order}i", header)[0] == HEADER:
            return order
    return None


def is_second_version(header: bytes) -> bool:
    """Whether a file begins as NIfTI-2 does."""
    return header[:4] in (struct.pack("<i", HEADER_2), struct.pack(">i", HEADER_2))


def bytes_of_voxel(header: bytes) -> int:
    """As it is stored."""
    return struct.unpack_from(f"{byte_order(header)}h", header, _BITS)[0] // 8


def float_type(header: bytes) -> np.dtype | None:
    """Of the voxels; None where they are integers, which are always finite."""
    order = byte_order(header)
    (code,) = struct.unpack_from(f"{order}h", header, _DATATYPE)
    return np.dtype(order + _FLOATS[code]) if code in _FLOATS else None


def offset(header: bytes) -> int:
    """Of the voxels in the file, bytes."""
    (found,) = struct.unpack_from(f"{byte_order(header)}f", header, _OFFSET)
    return max(HEADER, int(found)) if np.isfinite(found) else HEADER


def spacing(header: bytes) -> tuple[float, ...]:
    """Along the axes of the file, as it stands there."""
    return struct.unpack_from(f"{byte_order(header)}3f", header, _PIXDIM + 4)


def is_placed(header: bytes) -> bool:
    """Whether it says how the axes lie in the patient."""
    return any(struct.unpack_from(f"{byte_order(header)}2h", header, _QFORM))


def placed_like(header: bytes, like: bytes) -> bytes:
    """A little-endian header with the spacing, both forms and the units of another.

    Both forms, since readers differ in which they follow, and they may differ.
    """
    changed, order = bytearray(header), byte_order(like)
    for at, format in ((_PIXDIM, "8f"), (_UNITS, "B"), (_QFORM, "2h18f")):
        struct.pack_into(
            f"<{format}", changed, at, *struct.unpack_from(f"{order}{format}", like, at)
        )
    return bytes(changed)
