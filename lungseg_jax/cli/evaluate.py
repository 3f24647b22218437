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
from typing import TYPE_CHECKING

import click

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.location import PRETRAINED, is_bundle
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.files import check_outputs, write_json
from lungseg_jax.runtime.object_storage import is_remote

if TYPE_CHECKING:
    from lungseg_jax.data.preflight import CheckedFolder
    from lungseg_jax.inference.ensemble.trained import TrainedEnsemble


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
    check_outputs(
        [json] if json else [],
        folders=[report] if report else [],
        inputs=[data],
        overwrite=overwrite,
    )
    from lungseg_jax.data import preflight
    from lungseg_jax.data.intensity import require_intensity
    from lungseg_jax.data.remote_folder import local_data_folder
    from lungseg_jax.evaluation.results import format_summary
    from lungseg_jax.inference.ensemble.loading import load_ensemble
    from lungseg_jax.inference.ensemble.members import EVERY
    from lungseg_jax.runtime import cache

    root = cache.root_if_possible()
    checked = preflight.check_folder(local_data_folder(data, root), cache=root)
    data = data if is_remote(data) else data.absolute()
    # With all members, every choice of them is worth a row.
    trained = load_ensemble(run, members=EVERY if members == "all" else members)
    require_intensity(checked.values, trained.domain, str(data))
    evaluation = _evaluate(trained, checked, data, flips=flips)
    if json:
        write_json(json, evaluation)
    if report:
        _report(report, trained, evaluation, checked, data, flips=flips)
    progress.answer(format_summary(evaluation))


def _evaluate(
    trained: "TrainedEnsemble", checked: "CheckedFolder", data: Path, *, flips: bool
) -> dict:
    from lungseg_jax.data.pairs import read_slice
    from lungseg_jax.evaluation import evaluator
    from lungseg_jax.training.run import SCHEMA_VERSION, Run
    from lungseg_jax.training.run_folder import RunFolder

    names = [pair.name for pair in checked.pairs]
    evaluation = {"schema_version": SCHEMA_VERSION} | evaluator.evaluate(
        trained,
        map(read_slice, checked.pairs),
        len(checked.pairs),
        flips=flips,
        **evaluator.slice_metadata(checked.metadata, names),
    )
    evaluation["run"], evaluation["data"] = str(trained.path), str(data)
    evaluation["fingerprint"] = checked.fingerprint
    if not is_bundle(trained.path):  # a bundle does not list its training slices
        run = Run.open(RunFolder(trained.path))
        evaluation["trained_on"] = run.count_training_images(checked.digests)
    return evaluation


def _report(
    page: Path,
    trained: "TrainedEnsemble",
    evaluation: dict,
    checked: "CheckedFolder",
    data: Path,
    *,
    flips: bool,
) -> None:
    from lungseg_jax.data.pairs import read_slice
    from lungseg_jax.inference.segmenter import LungSegmenter
    from lungseg_jax.reporting.report import write_report

    pairs = {pair.name: pair for pair in checked.pairs}
    scored = trained.subset(list(evaluation["members"]))
    write_report(
        page,
        evaluation,
        LungSegmenter(scored, flips=flips),
        title=f"{trained.path.name} on {data.name}",
        read=lambda names: [read_slice(pairs[name]) for name in names],
    )
    progress.say(f"report: {page / 'index.html'}")
