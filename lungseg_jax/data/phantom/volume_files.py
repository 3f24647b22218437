"""A phantom patient as two files: a CT volume, and the mask of its lungs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lungseg_jax.data.io.formats import (
    EITHER,
    VOLUME,
    format_of,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volume_writer import VolumeWriter
from lungseg_jax.data.io.volumes import Volume
from lungseg_jax.data.phantom.volume import Scan
from lungseg_jax.runtime.errors import UserError


def mask_path(out: Path) -> Path:
    """Return the usual file of the mask of a volume: with _mask in its name."""
    name, suffix = split_suffix(out)
    return out.with_name(f"{name}_mask{suffix}")


def check_names(out: Path, mask: Path | None) -> None:
    """Refuse files that cannot hold a volume and its mask, by their suffixes.

    Raises:
      UserError: a format holds no volumes, or the volume would be a segmentation.
    """
    known = suffixes(VOLUME, EITHER, writable=True)
    for path in filter(None, (out, mask)):
        if split_suffix(path)[1] not in known:
            raise UserError(
                f"{path} does not have the suffix of a volume.",
                rule=f"one of {', '.join(known)}.",
                remedy=f"name it {path.stem}.nii.gz.",
            )
    if format_of(out).add_segments:
        raise UserError(
            f"{out} would be a segmentation.",
            rule="OUT is a CT volume; only its mask may be a segmentation.",
            remedy=f"name it {split_suffix(out)[0]}.nrrd.",
        )


def write_scan(
    scan: Scan, out: Path, mask: Path, *, progress: Callable[[], object]
) -> Geometry:
    """Write the slices of a scan in HU, int16, and its mask with 1 for lung.

    Args:
      scan: of `plan_volume`.
      out, mask: the files; they replace existing ones.
      progress: called after each slice.

    Returns:
      The voxel grid of both, with the chest in the middle.

    Raises:
      UserError: a file cannot be written.
    """
    between, row, column = scan.spacing_mm
    count, size = len(scan.levels), scan.size
    geometry = Geometry(
        (size, size, count),
        (column, row, between),
        (-0.5 * column * size, -0.5 * row * size, -0.5 * between * count),
    )
    grid = Volume(str(out), geometry, lambda axis, k: scan.draw(k)[0])
    with (
        VolumeWriter(out, grid, np.int16) as images,
        VolumeWriter(mask, grid, np.uint8) as masks,
    ):
        for k, (image, lungs) in enumerate(scan.slices()):
            images.write(k, image)
            masks.write(k, lungs > 0)
            progress()
    return geometry
