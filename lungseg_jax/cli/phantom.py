"""Draw a synthetic patient, from neck to abdomen, as a CT volume with its lung mask.

    lungseg phantom patient.nii.gz
    lungseg phantom --seed=7 --slices=200 --size=512 --spacing=2 patient.nii.gz
    lungseg phantom --mask=lungs.nii.gz patient.nii.gz

Equal flags give equal files. The mask is written beside the volume, here as
patient_mask.nii.gz, with 1 for lung.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.outputs import check_outputs

if TYPE_CHECKING:
    from lungseg_jax.data.io.geometry import Geometry
    from lungseg_jax.data.phantom.volume import Scan


@app.command(__doc__)
@app.output("OUT", "a file for the volume.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the patient.")
@click.option(
    "--slices", type=click.IntRange(1, 2000), default=96, help="Number of slices."
)
@click.option(
    "--size",
    type=click.IntRange(64, 2048),
    default=256,
    help="Height and width of a slice, px.",
)
@click.option(
    "--spacing",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Distance between slices, mm; 0: a spacing that covers neck to abdomen.",
)
@click.option(
    "--mask", type=app.PATH, help="File of the mask; by default OUT with _mask."
)
@app.overwrite_option
@app.quiet_option
def phantom(
    out: Path,
    seed: int,
    slices: int,
    size: int,
    spacing: float,
    mask: Path | None,
    overwrite: bool,
) -> None:
    import numpy as np

    from lungseg_jax.data.io.formats import split_suffix
    from lungseg_jax.data.io.volume_writer import VolumeWriter
    from lungseg_jax.data.io.volumes import Volume
    from lungseg_jax.data.phantom.volume import plan_volume

    name, suffix = split_suffix(out)
    _check(out, mask, spacing)
    mask = mask or out.with_name(f"{name}_mask{suffix}")
    check_outputs([out, mask], inputs=[], overwrite=overwrite)
    scan = plan_volume(seed=seed, slices=slices, size=size, spacing_mm=spacing)
    grid = Volume(f"phantom {seed}", _geometry(scan), lambda axis, k: scan.draw(k)[0])
    with (
        VolumeWriter(out, grid, np.int16) as images,
        VolumeWriter(mask, grid, np.uint8) as masks,
        progress.bar(out.name, len(scan.levels)) as bar,
    ):
        for k, (image, lungs) in enumerate(scan.slices()):
            images.write(k, image)
            masks.write(k, lungs > 0)
            bar.update()
    pixels = " x ".join(f"{n} px" for n in grid.geometry.size[:2])
    voxels = " x ".join(f"{mm:.3g}" for mm in grid.geometry.spacing)
    slices_drawn = pluralize(grid.count, "slice")
    progress.say(f"{out}, {mask}: {slices_drawn}, {pixels}, voxels {voxels} mm")


def _check(out: Path, mask: Path | None, spacing: float) -> None:
    from lungseg_jax.data.io.formats import (
        EITHER,
        VOLUME,
        format_of,
        split_suffix,
        suffixes,
    )
    from lungseg_jax.data.io.geometry import MIN_MM

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
    if spacing and not MIN_MM <= spacing < math.inf:
        raise UserError(
            f"--spacing={spacing:g} is out of range.",
            rule=f"at least {MIN_MM} mm, or 0 for the default.",
        )


def _geometry(scan: "Scan") -> "Geometry":
    """Return the voxel grid of a scan, with the chest in the middle."""
    from lungseg_jax.data.io.geometry import Geometry

    between, row, column = scan.spacing_mm
    count, size = len(scan.levels), scan.size
    return Geometry(
        (size, size, count),
        (column, row, between),
        (-0.5 * column * size, -0.5 * row * size, -0.5 * between * count),
    )
