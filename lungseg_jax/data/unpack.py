"""Compressed volumes as files whose voxels lie as they are, so that parts can be read.

NIfTI is decompressed as a whole. NRRD and MetaImage get a small header of their own
(.mhd) that points at the voxels, in the file itself or decompressed beside it.
"""

import contextlib
import itertools
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import SimpleITK as sitk

from lungseg_jax.data.geometry import Geometry
from lungseg_jax.errors import UserError

BLOCK = 2**20
MOST_HEADER = 2**20  # bytes of a text header, or of what stands before NIfTI's voxels
NIFTI_HEADER, NIFTI_2_HEADER = 348, 540  # bytes, and what they begin with
_TYPES = {
    sitk.sitkUInt8: "MET_UCHAR",
    sitk.sitkInt8: "MET_CHAR",
    sitk.sitkUInt16: "MET_USHORT",
    sitk.sitkInt16: "MET_SHORT",
    sitk.sitkUInt32: "MET_UINT",
    sitk.sitkInt32: "MET_INT",
    sitk.sitkFloat32: "MET_FLOAT",
    sitk.sitkFloat64: "MET_DOUBLE",
}


def plain(path: Path, geometry: Geometry, bytes_each: int, scratch: Path) -> Path:
    """A file that SimpleITK reads in parts: the file itself, or one in `scratch`.

    Args:
      path: NIfTI, NRRD or MetaImage.
      geometry: what its header says.
      bytes_each: of a voxel.
      scratch: an empty folder.

    Raises:
      UserError: the file is cut short, longer than it says, compressed in a way that is
        not known here, or its voxels lie in another file.
    """
    x, y, z = geometry.size
    payload = x * y * z * bytes_each
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _nifti(path, x * y * z, scratch)
    reads: Callable = _nrrd if name.endswith(".nrrd") else _metaimage
    with path.open("rb") as file:
        compressed, gzip_header, big_endian = reads(path, file)
        if compressed:
            raw = scratch / "voxels.raw"
            blocks = _inflated(_blocks(file), gzip_header=gzip_header)
            written = _spool(blocks, raw, payload, path)
        else:
            raw, written = path.absolute(), path.stat().st_size - file.tell()
    _check_length(path, written, payload)
    if written > payload:  # MetaImage finds the voxels from the end
        raise _damaged(path, f"{written - payload} bytes follow its voxels")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return point_at(raw, geometry, reader.GetPixelID(), scratch, big_endian=big_endian)


def point_at(
    raw: Path, geometry: Geometry, kind: int, scratch: Path, *, big_endian: bool = False
) -> Path:
    """A header in `scratch` for the voxels at a file's end, of SimpleITK type `kind`."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"DimSize = {' '.join(map(str, geometry.size))}",
        f"ElementType = {_TYPES[kind]}",
        f"ElementByteOrderMSB = {big_endian}",
        "HeaderSize = -1",
        "ElementDataFile = ",
    ]
    header = scratch / "plain.mhd"
    header.write_bytes("\n".join(lines).encode() + os.fsencode(raw) + b"\n")
    return header


def _nifti(path: Path, voxels: int, scratch: Path) -> Path:
    """The file, or it decompressed; a slope makes floats of what are integers there."""
    with path.open("rb") as file:
        if path.name.lower().endswith(".nii"):
            payload = voxels * _nifti_bytes(path, file.read(NIFTI_HEADER))
            _check_length(path, path.stat().st_size, payload + NIFTI_HEADER)
            return path
        blocks = _inflated(_blocks(file), gzip_header=True)
        with _decompressing(path, scratch):
            first = next(blocks, b"")
        payload = voxels * _nifti_bytes(path, first)
        # The header may be longer than it need be, and some pad the end.
        target, most = scratch / "plain.nii", payload + MOST_HEADER
        written = _spool(itertools.chain([first], blocks), target, most, path)
    _check_length(path, written, payload + NIFTI_HEADER)
    return target


def _nifti_bytes(path: Path, header: bytes) -> int:
    """Of a voxel as it is stored; NIfTI-1 or NIfTI-2, of either byte order."""
    for order in "<>":
        if header[:4] == struct.pack(f"{order}i", NIFTI_HEADER) and len(header) > 74:
            return struct.unpack_from(f"{order}h", header, 72)[0] // 8
        if header[:4] == struct.pack(f"{order}i", NIFTI_2_HEADER):
            return struct.unpack_from(f"{order}h", header, 14)[0] // 8
    raise _damaged(path, "it does not begin as NIfTI does")


def _nrrd(path: Path, file) -> tuple[bool, bool, bool]:
    """Whether it is compressed, by gzip, and big-endian; leaves `file` at the voxels."""
    fields = {}
    for line in _lines(path, file):
        if not line:
            break
        if not line.startswith("#") and ": " in line:
            key, value = line.split(": ", 1)
            fields[key.strip().lower()] = value.strip().lower()
    if "data file" in fields or "datafile" in fields:
        raise _elsewhere(path)
    encoding = fields.get("encoding", "")
    if encoding not in ("raw", "gzip", "gz"):
        raise UserError(
            f"{path} is encoded as {encoding or 'nothing'}.",
            rule="NRRD with encoding raw or gzip.",
            remedy="save it again as one of these.",
        )
    for skip in ("line skip", "byte skip", "lineskip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise UserError(f"{path} has a {skip}.", remedy="save it again without.")
    return encoding != "raw", True, fields.get("endian") == "big"


def _metaimage(path: Path, file) -> tuple[bool, bool, bool]:
    """The same of a MetaImage, which compresses by zlib."""
    fields = {}
    for line in _lines(path, file):
        key, _, value = line.partition("=")
        fields[key.strip().lower()] = value.strip().lower()
        if key.strip() == "ElementDataFile":
            break
    if fields.get("elementdatafile") != "local":
        raise _elsewhere(path)
    if fields.get("binarydata", "true") != "true":
        raise UserError(f"{path} holds text.", rule="BinaryData = True.")
    big = (fields.get(key) for key in ("elementbyteordermsb", "binarydatabyteordermsb"))
    return fields.get("compresseddata") == "true", False, "true" in big


def _lines(path: Path, file) -> Iterator[str]:
    while file.tell() < MOST_HEADER:
        line = file.readline(MOST_HEADER)
        if not line:
            break
        yield re.sub(r"[\r\n]+$", "", line.decode("latin-1"))
    raise _damaged(path, "its header does not end")


def _blocks(file) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _inflated(blocks: Iterator[bytes], *, gzip_header: bool) -> Iterator[bytes]:
    """What zlib or gzip made of it, block by block; gzip may have several members."""
    kind = 31 if gzip_header else 15
    inflate = zlib.decompressobj(kind)
    for block in blocks:
        while block:
            if inflate.eof:
                if not gzip_header:
                    return
                inflate = zlib.decompressobj(kind)
            out = inflate.decompress(block, BLOCK)
            block = inflate.unconsumed_tail or inflate.unused_data
            if out:
                yield out
    if not inflate.eof:
        raise EOFError


def _spool(blocks: Iterator[bytes], target: Path, most: int, path: Path) -> int:
    """Writes blocks to a file; the number of bytes."""
    written = 0
    with _decompressing(path, target.parent), target.open("wb") as out:
        for block in blocks:
            written += len(block)
            if written > most:
                raise _damaged(path, "it holds more than it declares")
            out.write(block)
    return written


@contextlib.contextmanager
def _decompressing(path: Path, scratch: Path) -> Iterator[None]:
    try:
        yield
    except (zlib.error, EOFError) as e:
        raise _damaged(path, "it cannot be decompressed to its end") from e
    except OSError as e:
        raise UserError(
            f"{path} cannot be decompressed into {scratch.parent}: {e.strerror}.",
            remedy="make room, or name another folder by TMPDIR.",
        ) from e


def _check_length(path: Path, found: int, needed: int) -> None:
    if found < needed:
        raise _damaged(path, f"it is cut short: {found} of {needed} bytes")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged: {why}.",
        rule="a whole file.",
        remedy="copy the file again from its source.",
    )


def _elsewhere(path: Path) -> UserError:
    return UserError(
        f"{path} is a header; its voxels lie in another file.",
        rule="header and voxels in one file.",
        remedy="save it as .nii.gz, .nrrd or .mha.",
    )
