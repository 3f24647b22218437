"""A folder of inputs: what in it can be read, and what is left out with a line."""

from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.data.io.dicom_files import is_dicom, may_be_dicom
from lungseg_jax.data.io.formats import format_of, kind_of
from lungseg_jax.runtime import progress

# Suffixes of volumes, some with a header in a file of its own, and of pictures.
UNSUPPORTED = (".mhd", ".nhdr", ".hdr", ".img", ".img.gz", ".mgh", ".mgz", ".mnc")
UNSUPPORTED += (".nii.bz2", ".gipl", ".vtk", ".jpg", ".jpeg", ".bmp")
SAVE_AS = "save it as .nii.gz, .nrrd or .mha; a slice as .tif, .png or .npy"


def list_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files and the folders in a folder; segmentations are left out."""
    paths = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    # A dead link, as of git-annex, is an unreadable scan, not a missing one.
    files = [p for p in paths if p.is_file() or not p.exists()]
    segmentations = [p for p in files if kind_of(p) and format_of(p).add_segments]
    for path in segmentations:
        progress.say(f"skipped: {path}: segmentation")
    files = [p for p in files if p not in segmentations]
    return files, [p for p in paths if p.is_dir()]


def is_series(folder: Path, files: Sequence[Path]) -> bool:
    """Whether the files of a folder are DICOM, or perhaps were: some are dead links."""
    if is_dicom(folder):
        return True
    is_dead = any(may_be_dicom(path) and not path.exists() for path in files)
    return is_dead and not any(map(kind_of, files))


def say_unknown(folder: Path, files: Sequence[Path]) -> None:
    """Print a line if a folder is empty, or images may be among what is left out of it."""
    unknown = [p for p in files if not kind_of(p) and may_be_dicom(p)]
    images = [p for p in unknown if p.name.lower().endswith(UNSUPPORTED)]
    if images:
        progress.say(f"skipped: {images[0]}{_and_more(images)}: unsupported; {SAVE_AS}")
    elif unknown and not any(map(kind_of, files)):
        first = unknown[0].name
        progress.say(f"skipped: {folder}: {first}{_and_more(unknown)}: unknown format")
    elif all(path.name.startswith(".") for path in folder.iterdir()):
        progress.say(f"skipped: {folder}: empty")


def _and_more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if paths[1:] else ""
