"""Draw a synthetic patient, from neck to abdomen, as a CT volume with its lung mask.

    lungseg phantom patient.nii.gz
    lungseg phantom --seed=7 --slices=200 --size=512 --spacing=2 patient.nii.gz
    lungseg phantom --mask=lungs.nii.gz patient.nii.gz

Equal flags give equal files. The mask is written beside the volume, here as
patient_mask.nii.gz, with 1 for lung.
"""

import math
from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.outputs import check_outputs


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
    from lungseg_jax.data.io.geometry import MIN_MM
    from lungseg_jax.data.phantom import volume_files

    volume_files.check_names(out, mask)
    mask = mask or volume_files.mask_path(out)
    if spacing and not MIN_MM <= spacing < math.inf:
        raise UserError(
            f"--spacing={spacing:g} is out of range.",
            rule=f"at least {MIN_MM} mm, or 0 for the default.",
        )
    check_outputs([out, mask], inputs=[], overwrite=overwrite)
    from lungseg_jax.data.phantom.volume import plan_volume

    scan = plan_volume(seed=seed, slices=slices, size=size, spacing_mm=spacing)
    with progress.bar(out.name, slices) as bar:
        grid = volume_files.write_scan(scan, out, mask, progress=bar.update)
    voxels = " x ".join(f"{mm:.3g}" for mm in grid.spacing)
    progress.say(
        f"{out}, {mask}: {pluralize(slices, 'slice')}, {size} px x {size} px, voxels "
        f"{voxels} mm"
    )
