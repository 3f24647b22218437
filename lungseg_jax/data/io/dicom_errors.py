"""Errors of DICOM files: those of GDCM, and of files that are not what they declare."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from lungseg_jax.runtime import native_output
from lungseg_jax.runtime.errors import UserError

# Transfer syntaxes of JPEG XL, HTJ2K and video, which GDCM does not decode.
_NOT_DECODED = re.compile(
    rb"\x02\0\x10\0UI..(1\.2\.840\.10008\.1\.2\.4\.[12]\d\d)", re.DOTALL
)


@contextlib.contextmanager
def errors_of(file: Path) -> Iterator[None]:
    """Turn errors of GDCM in the block into ours; its codecs also print them.

    Raises:
      UserError: the file cannot be read, or is compressed in an unsupported way.
    """
    try:
        with native_output.discarded():
            yield
    except (OSError, RuntimeError) as e:
        raise _unreadable(file) from e


def _unreadable(file: Path) -> UserError:
    """Return the error for a file that GDCM cannot read: it may be intact."""
    start = b""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        start = opened.read(1024)
    if match := _NOT_DECODED.search(start):
        return unsupported_compression(file, match[1].decode())
    return damaged(file, "it cannot be read as DICOM")


def unsupported_compression(file: Path, syntax: str) -> UserError:
    """Return the error for a file with a transfer syntax that is not decoded."""
    return UserError(
        f"{file} is compressed in an unsupported way: its transfer syntax (0002,0010) is "
        f"{syntax}.",
        rule="DICOM that is uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000; with "
        "several frames, uncompressed, RLE or JPEG 2000.",
        remedy="export the series without compression, or decompress it with pydicom.",
    )


def damaged(file: Path, why: str) -> UserError:
    """Return the error for a file that is not what it declares."""
    return UserError(
        f"{file} is damaged: {why}.",
        rule="an intact DICOM file of a CT slice.",
        remedy="copy it again, or move it out of the folder.",
    )
