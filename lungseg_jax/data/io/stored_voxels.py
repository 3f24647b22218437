"""Where NRRD and MetaImage volumes have their voxels, according to their text headers.

References: teem.sourceforge.net/nrrd/format.html and MetaIO, "MetaImage documentation".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lungseg_jax.data.io.decompression import damaged
from lungseg_jax.runtime.errors import UserError

DETACHED = (".mhd", ".nhdr")  # headers whose voxels are in a file beside them
NRRD = (".nrrd", ".nhdr")
MAX_HEADER_BYTES = 2**20
AT_END = -1


class StoredVoxels(NamedTuple):
    """How the voxels of a volume are stored.

    Attributes:
      file: the volume, or a file beside it.
      start: of the voxels in `file`, in bytes; `AT_END` if they are the last ones in it.
      is_compressed: whether they are a zlib stream or a gzip file.
      is_big_endian: their byte order.
    """

    file: Path
    start: int
    is_compressed: bool
    is_big_endian: bool


def find_voxels(path: Path) -> StoredVoxels:
    """Find the voxels of an NRRD or MetaImage volume.

    Raises:
      OSError: it cannot be read.
      UserError: its header is damaged, or the voxels are missing, stored in a way that is
        not supported, or where they may not be: in several files, in another folder, or in
        a file beside one that is complete by its suffix.
    """
    with path.open("rb") as file:
        return (_parse_nrrd if is_nrrd(path) else _parse_metaimage)(path, file)


def files_of(path: Path) -> list[Path]:
    """Return a volume, and the file beside it that has its voxels, if there is one.

    Raises:
      OSError, UserError: as `find_voxels`.
    """
    if not path.name.lower().endswith(DETACHED):
        return [path]
    return list(dict.fromkeys([path, find_voxels(path).file]))


def is_nrrd(path: Path) -> bool:
    """Return whether a file is NRRD, by its suffix."""
    return path.name.lower().endswith(NRRD)


def _parse_nrrd(path: Path, file: BinaryIO) -> StoredVoxels:
    fields = {}
    for line in _header_lines(path, file):
        if not line:
            break
        if not line.startswith("#") and ": " in line:
            key, value = line.split(": ", 1)
            fields[key.strip().lower()] = value.strip()
        if line.lower().startswith(("data file:", "datafile:")):
            break  # nothing but the names of files follows
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise UserError(
            f"{path} has the encoding {encoding or '(none)'}.",
            rule="NRRD with encoding raw or gzip.",
            remedy="save it again as one of these.",
        )
    for skip in ("line skip", "byte skip", "lineskip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise UserError(f"{path} has a {skip}.", remedy="save it again without it.")
    name = fields.get("data file") or fields.get("datafile")
    return StoredVoxels(
        _beside(path, name) if name else path,
        0 if name else file.tell(),
        encoding != "raw",
        fields.get("endian", "").lower() == "big",
    )


def _parse_metaimage(path: Path, file: BinaryIO) -> StoredVoxels:
    fields = {}
    for line in _header_lines(path, file):
        key, _, value = line.partition("=")
        fields[key.strip().lower()] = value.strip()
        if key.strip() == "ElementDataFile":
            break

    def is_true(key, otherwise=""):  # as MetaIO reads it
        return fields.get(key, otherwise).lower().startswith(("t", "1"))

    if not is_true("binarydata", "true"):
        raise UserError(f"{path} stores its voxels as text.", rule="BinaryData = True.")
    skipped = fields.get("headersize", "0")
    if not re.fullmatch(r"-1|\d{1,9}", skipped):
        raise damaged(path, f"its HeaderSize is {skipped}")
    is_compressed = is_true("compresseddata")
    if skipped == "-1" and is_compressed:  # nobody knows how long they are
        skipped = "0"
    name = fields["elementdatafile"]
    is_local = name.lower() == "local"
    orders = "elementbyteordermsb", "binarydatabyteordermsb"
    return StoredVoxels(
        path if is_local else _beside(path, name),
        int(skipped) or (file.tell() if is_local else 0),
        is_compressed,
        any(map(is_true, orders)),
    )


def _beside(path: Path, name: str) -> Path:
    """Return the file beside a header that has its voxels.

    A header from others may not lead to any other file: its voxels could be seen in masks
    and pictures.
    """
    if not path.name.lower().endswith(DETACHED):
        raise UserError(
            f"{path} is a header without voxels: they are in another file.",
            rule="header and voxels in one file.",
            remedy="save it as .nii.gz, .nrrd or .mha.",
        )
    name = name.removeprefix("./")
    file = path.parent / name
    if Path(name).name != name or "\\" in name or not file.is_file():
        raise UserError(
            f"{path} has its voxels in {name}, which is not a file beside it.",
            rule="all voxels in one file, in the folder of the header.",
            remedy="copy that file there, or save the volume as .nii.gz.",
        )
    return file


def _header_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    while file.tell() < MAX_HEADER_BYTES:
        line = file.readline(MAX_HEADER_BYTES)
        if not line:
            break
        yield re.sub(r"[\r\n]+$", "", line.decode("utf-8", "surrogateescape"))
    raise damaged(path, "its header does not end")
