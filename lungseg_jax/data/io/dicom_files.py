"""What tells a DICOM file from others: its content, since most have no suffix.

Reference: DICOM PS3.10, section 7.1.
"""

from pathlib import Path

PREAMBLE = 128  # bytes
_MAGIC = b"DICM"  # after the preamble
_TEXTS = {".csv", ".htm", ".html", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml"}


def is_dicom(path: Path) -> bool:
    """Return whether a path is a DICOM file, or a folder with one directly in it."""
    if path.is_dir():
        return any(map(is_dicom_file, path.iterdir()))
    return is_dicom_file(path)


def is_dicom_file(path: Path) -> bool:
    """Return whether a file starts as DICOM does, with a preamble and magic bytes."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(PREAMBLE)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def may_be_dicom(path: Path) -> bool:
    """Return whether a name can be that of a DICOM file: it is not hidden, nor a text."""
    return not path.name.startswith(".") and path.suffix.lower() not in _TEXTS
