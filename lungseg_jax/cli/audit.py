"""List labels that look wrong: they agree less with a mask than the network expects.

    lungseg audit DIR audit
    lungseg audit --run=RUN DIR audit

DIR holds 2d_images/ and 2d_masks/ with equal file names. Each slice is segmented with the
weights of the package, or with --run, and compared with its label. Where they agree much
less than the network expects, one of the two is wrong: look at it. No label is changed.

Writes audit/labels.csv with a row for each slice, the most suspect first, and
audit/labels.png with pictures of the first 16: only the mask in orange, only the label in
blue. A network repeats errors of labels that it has learned, so slices that RUN was trained
on are left out, unless it is a bundle, which does not list them; `lungseg crossval` audits
all slices of a folder.
"""

from pathlib import Path

import click

from lungseg_jax.cli import app
from lungseg_jax.data.data_folder import require_data_folder
from lungseg_jax.inference.ensemble.location import (
    PRETRAINED,
    require_ensemble,
    require_outside_ensemble,
)
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.outputs import check_outputs


@app.command(__doc__)
@app.run_option(
    "Run or bundle: a folder, gs://, s3:// or hf://; by default that of the package.",
    default=PRETRAINED,
)
@app.members_option
@app.flips_option
@app.overwrite_option
@app.quiet_option
@app.verbose_option
@click.argument("data", metavar="DIR", type=app.FOLDER)
@app.output("OUTPUT", "the folder for the table and the pictures.")
def audit(
    run: str, members: str, flips: bool, overwrite: bool, data: Path, out: Path
) -> None:
    require_data_folder(data)
    require_ensemble(run)
    check_outputs([], folders=[out], inputs=[data], overwrite=overwrite)
    require_outside_ensemble(run, [out])
    from lungseg_jax.data import preflight
    from lungseg_jax.data.remote_folder import local_data_folder
    from lungseg_jax.evaluation.label_audit import format_suspects
    from lungseg_jax.evaluation.labelled_folder import audit_folder
    from lungseg_jax.inference.segmenter import load
    from lungseg_jax.runtime import cache

    root = cache.root_if_possible()
    checked = preflight.check_folder(local_data_folder(data, root), cache=root)
    audited = audit_folder(load(run, members=members, flips=flips), checked, data)
    audited.write(out)
    progress.answer(format_suspects(audited.scores.slices))
    progress.say(f"wrote the table and the pictures to {out}")
