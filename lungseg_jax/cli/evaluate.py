"""Score a run on a labelled folder, at the slices' own size.

    lungseg evaluate --run=runs/incp_snapshot-phantom --data=DIR
    lungseg evaluate --run=RUN --data=DIR --members=last --json=scores.json
    lungseg evaluate --run=RUN --data=DIR --report=page

DIR holds 2d_images/ and 2d_masks/ with equal file names, and optionally slices.csv with
patients and pixel spacings. Every member and the ensemble as `predict` uses it are scored
at the threshold of the run. Every choice of members is scored too if a run has several
snapshots and --members is not set. --report writes the page that a training ends with,
for these slices: figures, and a CSV file with a row for each slice.
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
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import write_json
from lungseg_jax.runtime.outputs import check_outputs


@app.command(
    __doc__,
    when_interrupted="files already written are complete; --overwrite replaces them.",
)
@app.run_option(
    "Run or bundle: a folder, gs://, s3:// or hf://; by default that of the package.",
    default=PRETRAINED,
)
@click.option(
    "--data", type=app.FOLDER, required=True, help="Folder of slices and masks."
)
@app.members_option
@app.flips_option
@click.option("--json", type=app.PATH, help="File for the scores.")
@click.option("--report", type=app.PATH, help="Folder for a page of the scores.")
@app.overwrite_option
@app.quiet_option
@app.verbose_option
def evaluate(
    run: str,
    data: Path,
    members: str,
    flips: bool,
    json: Path | None,
    report: Path | None,
    overwrite: bool,
) -> None:
    require_data_folder(data)
    require_ensemble(run)
    check_outputs(
        [json] if json else [],
        folders=[report] if report else [],
        inputs=[data],
        overwrite=overwrite,
    )
    require_outside_ensemble(run, [path for path in (json, report) if path])
    if json and report and json.resolve().is_relative_to(report.resolve()):
        raise UserError(
            f"--json={json} is in the folder of the page, {report}.",
            rule="the page has files of its own there.",
            remedy="name a file elsewhere.",
        )
    from lungseg_jax.data import preflight
    from lungseg_jax.data.remote_folder import local_data_folder
    from lungseg_jax.evaluation.labelled_folder import evaluate_folder
    from lungseg_jax.evaluation.results import format_summary
    from lungseg_jax.inference.ensemble.loading import load_ensemble
    from lungseg_jax.inference.ensemble.members import EVERY
    from lungseg_jax.runtime import cache

    root = cache.root_if_possible()
    checked = preflight.check_folder(local_data_folder(data, root), cache=root)
    # With all members, every choice of them is worth a row.
    trained = load_ensemble(run, members=EVERY if members == "all" else members)
    evaluation = evaluate_folder(trained, checked, data, flips=flips)
    if json:
        write_json(json, evaluation)
    if report:
        from lungseg_jax.reporting.folder_page import write_folder_page

        page = write_folder_page(report, trained, evaluation, checked)
        progress.say(f"report: {page}")
    progress.answer(format_summary(evaluation))
