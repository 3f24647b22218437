"""Formats of images that are not read: what to do about such a file."""

from collections.abc import Sequence
from pathlib import Path

from lungseg_jax.runtime import progress

# Suffixes of volumes, some with a header in a file of its own, and of pictures.
IMAGES = (".hdr", ".img", ".img.gz", ".mgh", ".mgz", ".mnc")
IMAGES += (".nii.bz2", ".gipl", ".vtk", ".jpg", ".jpeg", ".bmp")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".dcm.gz", ".7z", ".rar")
REMEDIES = {  # by suffix
    IMAGES: "save it as .nii.gz, .nrrd or .mha; a slice as .tif, .png or .npy",
    ARCHIVES: "unpack it first",
}


def remedy_for(path: Path) -> str:
    """Say how a file that is not read can be used; "" if its suffix does not tell."""
    name = path.name.lower()
    return next((r for suffixes, r in REMEDIES.items() if name.endswith(suffixes)), "")


def say_skipped(paths: Sequence[Path]) -> None:
    """Print a line for each remedy, with the first of its files."""
    for remedy in REMEDIES.values():
        if same := [path for path in paths if remedy_for(path) == remedy]:
            progress.say(f"skipped: {same[0]}{and_more(same)}: unsupported; {remedy}")


def and_more(paths: Sequence[Path]) -> str:
    """Return " and 2 more" for three paths, of which the first is named; "" for one."""
    return f" and {len(paths) - 1} more" if paths[1:] else ""
