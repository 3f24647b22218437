"""Compressed volumes as files whose voxels lie as they are, so that parts can be read.

NIfTI is decompressed as a whole. NRRD and MetaImage get a small header of their own
(.mhd) that points at the voxels, in the file itself or decompressed beside it.
"""

import contextlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io import nifti
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.runtime.errors import UserError

BLOCK = 2**20
MOST_HEADER = 2**20  # bytes of a text header, or of what stands before NIfTI's voxels
_TYPES = {
    sitk.sitkUInt8: "MET_UCHAR",
    sitk.sitkInt8: "MET_CHAR",
    sitk.sitkUInt16: "MET_USHORT",
    sitk.sitkInt16: "MET_SHORT",
    sitk.sitkUInt32: "MET_UINT",
    sitk.sitkInt32: "MET_INT",
    sitk.sitkUInt64: "MET_ULONG_LONG",
    sitk.sitkInt64: "MET_LONG_LONG",
    sitk.sitkFloat32: "MET_FLOAT",
    sitk.sitkFloat64: "MET_DOUBLE",
}


def ensure_seekable(
    path: Path, geometry: Geometry, bytes_each: int, scratch: Path
) -> Path:
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
    return write_mhd_header(
        raw, geometry, reader.GetPixelID(), scratch, big_endian=big_endian
    )


def write_mhd_header(
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
    if "\n" in str(raw):  # the header is lines
        raise UserError(f"{raw} has a line break in its name.", remedy="rename it.")
    header = scratch / "plain.mhd"
    header.write_bytes("\n".join(lines).encode() + os.fsencode(raw) + b"\n")
    return header


def _nifti(path: Path, voxels: int, scratch: Path) -> Path:
    """The file, or it decompressed; a slope makes floats of what are integers there."""
    with path.open("rb") as file:
        if path.name.lower().endswith(".nii"):
            target, header = path, file.read(nifti.HEADER)
            written, payload = path.stat().st_size, _nifti_payload(path, header, voxels)
        else:
            blocks = _inflated(_blocks(file), gzip_header=True)
            with _decompressing(path, scratch):
                header = next(blocks, b"")
            payload = _nifti_payload(path, header, voxels)
            # The header may be longer than it need be, and some pad the end.
            target, most = scratch / "plain.nii", payload + MOST_HEADER
            written = _spool(itertools.chain([header], blocks), target, most, path)
    _check_length(path, written, payload + nifti.HEADER)
    _check_finite(path, target, header, voxels)
    return target


def _nifti_payload(path: Path, header: bytes, voxels: int) -> int:
    if not nifti.byte_order(header):
        raise _damaged(path, "it does not begin as NIfTI does")
    if not all(0 < mm < np.inf for mm in nifti.spacing(header)):
        raise _damaged(path, f"its voxels measure {nifti.spacing(header)}")
    return voxels * nifti.bytes_of_voxel(header)


def _check_finite(path: Path, plain: Path, header: bytes, voxels: int) -> None:
    """SimpleITK gives 0 for what is not finite: soft tissue."""
    kind = nifti.float_type(header)
    if kind is None:
        return
    with plain.open("rb") as file:
        file.seek(nifti.offset(header))
        for start in range(0, voxels, BLOCK):
            block = np.fromfile(file, kind, min(BLOCK, voxels - start))
            if not np.isfinite(block).all():
                raise UserError(
                    f"{path} has NaN or infinite voxels.",
                    rule="finite values.",
                    remedy="give these voxels the value of air, -1000 HU.",
                )


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
