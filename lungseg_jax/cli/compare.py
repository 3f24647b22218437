"""Score masks from any source against true ones.

    lungseg compare truth.png mask.png
    lungseg compare --tolerance=3 truth.nii.gz mask.nii.gz
    lungseg compare --csv=scores.csv labels/ masks/
    lungseg compare --lung=10,11,12,13,14 labels/ masks/

TRUTH and MASK are two image files, two volumes of the same size and geometry, or two
folders: of image files with equal names, or of volumes, which may be in subfolders and,
as those of nnU-Net, may end in _0000 in one of them. Arrays (.npy), which have no
geometry, are compared with arrays. Volumes are scored in 3D, as papers report it, with
distances in mm; a single one also by its axial slices. Arrays and single-slice files have
no spacing, so distances are in pixels. Masks have the values 0 and 1, or 0 and 255: those
that predict writes with --labels=sides cannot be compared.
"""

import math
from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.runtime.errors import UserError


@app.command(__doc__)
@click.argument("truth", metavar="TRUTH", type=app.PATH)
@click.argument("mask", metavar="MASK", type=app.PATH)
@app.lung_option("Values of TRUTH that are lung, if it is a label of several organs.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Tolerance of NSD, in mm or pixels.",
)
@click.option(
    "--csv", type=app.PATH, help="File for the scores of each slice, or each volume."
)
@click.option("--json", type=app.PATH, help="File for all scores.")
@app.overwrite_option
@app.quiet_option
def compare(
    truth: Path,
    mask: Path,
    lung: list[int],
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
        compare_volumes,
        format_scores,
    )
    from lungseg_jax.evaluation.mask_pairs import (
        check_grids,
        pair_masks,
        pair_volumes,
    )
    from lungseg_jax.evaluation.slice_scores import write_scores
    from lungseg_jax.runtime import progress
    from lungseg_jax.runtime.files import write_json
    from lungseg_jax.runtime.outputs import check_outputs

    outputs = [path for path in (csv, json) if path]
    check_outputs(outputs, inputs=[truth, mask], overwrite=overwrite)
    if volumes := pair_volumes(truth, mask):
        with progress.bar("checking", len(volumes), unit="volume") as bar:
            check_grids(volumes, progress=bar.update)
        with progress.bar("comparing", len(volumes), unit="volume") as bar:
            comparison = compare_volumes(
                volumes, lung=lung, tolerance=tolerance, progress=bar.update
            )
    else:
        with (
            pair_masks(truth, mask, lung=lung) as pairs,
            progress.bar("comparing", pairs.count) as bar,
        ):
            comparison = compare_masks(pairs, tolerance=tolerance, progress=bar.update)
    if csv:
        of = "volume" if volumes else "slice"
        write_scores(csv, comparison[f"{of}s"], of=of)
    if json:
        write_json(json, comparison)
    progress.answer(format_scores(comparison))
