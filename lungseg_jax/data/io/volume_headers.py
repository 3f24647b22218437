"""The headers of NRRD and MetaImage volumes with compressed voxels: lines of text.

References: teem.sourceforge.net/nrrd/format.html and MetaIO, "MetaImage documentation".
"""

from collections.abc import Iterable, Sequence

import numpy as np

from lungseg_jax.data.io.volumes import Volume

_NRRD_TYPES = {"uint8": "unsigned char", "int16": "short", "float32": "float"}
_MET_TYPES = {"uint8": "MET_UCHAR", "int16": "MET_SHORT", "float32": "MET_FLOAT"}


def nrrd_header(volume: Volume, dtype: np.dtype, size: int) -> bytes:
    """Return the header of an NRRD file like `volume`, whose voxels are gzipped.

    Args:
      volume: its size and geometry are taken over.
      dtype: of the voxels: uint8, int16 or float32.
      size: of the compressed voxels in bytes; NRRD does not state it.
    """
    geometry = volume.geometry
    direction = np.reshape(geometry.direction, (3, 3))
    steps = map(_vector, (direction * geometry.spacing).T)
    return _text(
        [
            "NRRD0004",
            f"type: {_NRRD_TYPES[dtype.name]}",
            "dimension: 3",
            "space: left-posterior-superior",
            f"sizes: {_words(geometry.size)}",
            f"space directions: {_words(steps)}",
            "kinds: domain domain domain",
            "endian: little",
            "encoding: gzip",
            f"space origin: {_vector(geometry.origin)}",
            "",
        ]
    )


def mha_header(volume: Volume, dtype: np.dtype, size: int) -> bytes:
    """Return the header of a MetaImage like `volume`, whose voxels are a zlib stream.

    Args:
      volume: its size and geometry are taken over.
      dtype: of the voxels: uint8, int16 or float32.
      size: of the compressed voxels in bytes.
    """
    geometry = volume.geometry
    axes = np.reshape(geometry.direction, (3, 3)).T
    return _text(
        [
            "ObjectType = Image",
            "NDims = 3",
            "BinaryData = True",
            "BinaryDataByteOrderMSB = False",
            "CompressedData = True",
            f"CompressedDataSize = {size}",
            f"TransformMatrix = {_words(axes.ravel())}",
            f"Offset = {_words(geometry.origin)}",
            f"ElementSpacing = {_words(geometry.spacing)}",
            f"DimSize = {_words(geometry.size)}",
            f"ElementType = {_MET_TYPES[dtype.name]}",
            "ElementDataFile = LOCAL",
        ]
    )


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _words(values: Iterable) -> str:
    return " ".join(map(str, values))


def _vector(values: Sequence[float]) -> str:
    return f"({','.join(map(str, values))})"
