"""Score masks from any source against true ones.

    lungseg compare truth.png mask.png
    lungseg compare --csv=scores.csv 2d_masks/ masks/
    lungseg compare --tolerance=3 truth.nii.gz mask.nii.gz

TRUTH and MASK are two image files, two folders of files with equal names, or two volumes
of the same size and geometry; arrays (.npy), which have no geometry, are compared with
arrays. A volume is scored in 3D, as papers report it, and by its axial slices, with
distances in mm; arrays and single-slice files have no spacing, so distances are in pixels.
Masks have the values 0 and 1, or 0 and 255: those that predict writes with --labels=sides
cannot be compared.
"""

import math
from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime.errors import UserError


@app.command(__doc__)
@click.argument("truth", metavar="TRUTH", type=app.PATH)
@click.argument("mask", metavar="MASK", type=app.PATH)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Tolerance of NSD, in mm or pixels.",
)
@click.option("--csv", type=app.PATH, help="File for the scores of each slice.")
@click.option("--json", type=app.PATH, help="File for all scores.")
@app.overwrite_option
@app.quiet_option
def compare(
    truth: Path,
    mask: Path,
    tolerance: float,
    csv: Path | None,
    json: Path | None,
    overwrite: bool,
) -> None:
    if not math.isfinite(tolerance):
        raise UserError(
            f"--tolerance={tolerance} is out of range.", rule="a distance, 0 or more."
        )
    from lungseg_jax.evaluation.comparison import (
        compare_masks,
        format_scores,
        pair_masks,
    )
    from lungseg_jax.evaluation.slice_scores import write_slice_scores
    from lungseg_jax.runtime import progress
    from lungseg_jax.runtime.files import write_json
    from lungseg_jax.runtime.outputs import check_outputs

    outputs = [path for path in (csv, json) if path]
    check_outputs(outputs, inputs=[truth, mask], overwrite=overwrite)
    with (
        pair_masks(truth, mask) as pairs,
        progress.bar("comparing", pairs.count) as bar,
    ):
        comparison = compare_masks(pairs, tolerance=tolerance, progress=bar.update)
    if csv:
        write_slice_scores(csv, comparison["slices"])
    if json:
        write_json(json, comparison)
    progress.answer(format_scores(comparison))
