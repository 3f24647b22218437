"""Decompression of zlib and gzip streams to disk, with a limit on what they may become.

Parts of a decompressed file can be read without the rest, and a decompression bomb cannot
fill the disk.
"""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lungseg_jax.runtime.errors import UserError

BLOCK = 2**20  # bytes


def decompress(
    file: BinaryIO, target: Path, *, is_gzip: bool, max_bytes: int, path: Path
) -> int:
    """Decompress the rest of a file into another, block by block.

    Args:
      file: open, and positioned at the start of the compressed data.
      target: the file to write.
      is_gzip: the data are a gzip file, of one or more members, and not a zlib stream.
      max_bytes: the size that `target` may have.
      path: of `file`, for errors.

    Returns:
      The number of bytes written.

    Raises:
      UserError: the data are damaged, truncated or become too large, or the disk is full.
    """
    written = 0
    try:
        with target.open("wb") as out:
            for block in _inflate(file, is_gzip=is_gzip):
                written += len(block)
                if written > max_bytes:
                    raise damaged(path, "it holds more data than it declares")
                out.write(block)
    except (zlib.error, EOFError) as e:
        raise damaged(path, "it cannot be decompressed to its end") from e
    except OSError as e:
        raise UserError(
            f"{path} cannot be decompressed into {target.parent.parent}: {e.strerror}.",
            remedy="free some space there, or set TMPDIR to another folder.",
        ) from e
    return written


def read_start(path: Path, n: int, *, is_gzip: bool) -> bytes:
    """Return the first `n` bytes of a plain or gzipped file, or all if it is shorter.

    Raises:
      UserError: the file cannot be read or decompressed.
    """
    try:
        with path.open("rb") as file:
            if not is_gzip:
                return file.read(n)
            start = b""
            with contextlib.closing(_inflate(file, is_gzip=True)) as blocks:
                for block in blocks:
                    start += block
                    if len(start) >= n:
                        break
            return start[:n]
    except (zlib.error, EOFError) as e:
        raise damaged(path, "it cannot be decompressed") from e
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}.") from e


def require_length(path: Path, actual: int, needed: int) -> None:
    """Refuse a truncated file.

    Raises:
      UserError: it has fewer bytes than needed.
    """
    if actual < needed:
        raise damaged(path, f"it is truncated: {actual} of {needed} bytes")


def damaged(path: str | Path, why: str) -> UserError:
    """Return the error for a damaged file."""
    return UserError(
        f"{path} is damaged: {why}.",
        rule="an intact file.",
        remedy="copy the file again from its source.",
    )


def _inflate(file: BinaryIO, *, is_gzip: bool) -> Iterator[bytes]:
    wbits = 31 if is_gzip else 15
    decompressor = zlib.decompressobj(wbits)
    while block := file.read(BLOCK):
        while block:
            if decompressor.eof:
                if not is_gzip:
                    return
                if not (block := block.lstrip(b"\0")):  # padding, as on tapes
                    break
                decompressor = zlib.decompressobj(wbits)  # the next member
            out = decompressor.decompress(block, BLOCK)
            block = decompressor.unconsumed_tail or decompressor.unused_data
            if out:
                yield out
    if not decompressor.eof:
        raise EOFError
