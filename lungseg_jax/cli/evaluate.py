"""Score a run on a labelled folder, at the slices' own size.

    lungseg evaluate --run=runs/incp_snapshot-phantom --data=DIR
    lungseg evaluate --run=RUN --data=DIR --members=last --json=scores.json
    lungseg evaluate --run=RUN --data=DIR --report=page

DIR holds 2d_images/ and 2d_masks/ with equal file names, and optionally slices.csv with
patients and pixel spacings. Every member, every choice of members, and the ensemble as
`predict` uses it are scored at the threshold of the run. --report writes the page that a
training ends with, for these slices: figures, and a CSV file with a row for each slice.
"""

import contextlib
from pathlib import Path

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data import preflight
from lungseg_jax.data.pairs import read_slice
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.evaluation import evaluator
from lungseg_jax.evaluation.results import format_summary
from lungseg_jax.inference.ensemble.bundle import PRETRAINED, is_bundle
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.inference.ensemble.members import EVERY
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting.report import write_report
from lungseg_jax.runtime import cache, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path, write_json
from lungseg_jax.training.run import SCHEMA_VERSION, Run
from lungseg_jax.training.run_folder import RunFolder

FLAGS = flags.FlagValues()
app.define_run(
    FLAGS,
    "Run folder, or bundle; by default the weights of the package.",
    default=PRETRAINED,
)
flags.DEFINE_string(
    "data", None, "Folder of slices and masks.", required=True, flag_values=FLAGS
)
app.define_members(FLAGS)
app.define_flips(FLAGS)
flags.DEFINE_string("json", "", "File for the scores.", flag_values=FLAGS)
flags.DEFINE_string("report", "", "Folder for a page of the scores.", flag_values=FLAGS)
app.define_overwrite(FLAGS)


def evaluate(words: list[str]) -> None:
    app.positional(words, [])
    data = user_path(FLAGS.data)
    json = user_path(FLAGS.json) if FLAGS.json else None
    page = user_path(FLAGS.report) if FLAGS.report else None
    check_outputs(
        [json] if json else [],
        folders=[page] if page else [],
        inputs=[data],
        overwrite=FLAGS.overwrite,
    )
    root = None
    with contextlib.suppress(UserError):  # without a cache, files are always decoded
        root = cache.cache_root()
    checked = preflight.check_folder(data, cache=root)
    # With all members, every choice of them is worth a row.
    members = EVERY if FLAGS.members == "all" else FLAGS.members
    trained = load_ensemble(FLAGS.run, members=members)
    evaluation = _evaluate(trained, checked, data)
    if json:
        write_json(json, evaluation)
    if page:
        _report(page, trained, evaluation, checked, data)
    progress.answer(format_summary(evaluation))


def _evaluate(trained: TrainedEnsemble, checked: CheckedFolder, data: Path) -> dict:
    names = [pair.name for pair in checked.pairs]
    evaluation = {"schema_version": SCHEMA_VERSION} | evaluator.evaluate(
        trained,
        map(read_slice, checked.pairs),
        len(checked.pairs),
        flips=FLAGS.flips,
        **evaluator.slice_metadata(checked.metadata, names),
    )
    evaluation["run"], evaluation["data"] = str(trained.path), str(data.absolute())
    evaluation["fingerprint"] = checked.fingerprint
    if not is_bundle(trained.path):  # a bundle does not list its training slices
        run = Run.open(RunFolder(trained.path))
        evaluation["trained_on"] = run.count_training_images(checked.digests)
    return evaluation


def _report(
    page: Path,
    trained: TrainedEnsemble,
    evaluation: dict,
    checked: CheckedFolder,
    data: Path,
) -> None:
    pairs = {pair.name: pair for pair in checked.pairs}
    scored = trained.subset(list(evaluation["members"]))
    write_report(
        page,
        evaluation,
        LungSegmenter(scored, flips=FLAGS.flips),
        title=f"{trained.path.name} on {data.absolute().name}",
        read=lambda names: [read_slice(pairs[name]) for name in names],
    )
    progress.say(f"report: {page / 'index.html'}")


def main() -> None:
    app.run(evaluate, FLAGS, __doc__)
