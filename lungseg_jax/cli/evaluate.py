"""Scores a run on a labelled folder, at the slices' own size.

    lungseg evaluate --run=runs/incp_snapshot-phantom --data=DIR
    lungseg evaluate --run=RUN --data=DIR --members=last --json=scores.json
    lungseg evaluate --run=RUN --data=DIR --report=page

DIR holds 2d_images/ and 2d_masks/ with equal file names, and slices.csv where patients or
pixel spacing are known. Every member, every choice of members and the ensemble as
`predict` uses it are scored at the threshold of the run. --report writes the page that a
training ends with, of these slices: figures, and a CSV file with a row for each.

`python -m lungseg_jax.cli.evaluate` is the same command.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

import contextlib

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.data import preflight
from lungseg_jax.data.pairs import read_slice
from lungseg_jax.evaluation import evaluator
from lungseg_jax.evaluation.results import format_summary
from lungseg_jax.inference import segmenter
from lungseg_jax.inference.ensemble import bundle
from lungseg_jax.inference.ensemble.members import EVERY
from lungseg_jax.reporting import report
from lungseg_jax.runtime import cache, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import check_outputs, user_path
from lungseg_jax.training import run_record
from lungseg_jax.training.run_folder import RunFolder, write_json

FLAGS = flags.FLAGS


def main(words: list[str]) -> None:
    app.positional(words, [])
    outputs = {
        flag: user_path(FLAGS[flag].value)
        for flag in ("json", "report")
        if FLAGS[flag].value
    }
    data, root = user_path(FLAGS.data), None
    check_outputs(
        [path for flag, path in outputs.items() if flag == "json"],
        folders=[path for flag, path in outputs.items() if flag == "report"],
        inputs=[data],
        overwrite=FLAGS.overwrite,
    )
    with contextlib.suppress(UserError):  # without a cache it is checked every time
        root = cache.cache_root()
    checked = preflight.check_folder(data, cache=root)
    # The choices are worth a row each where none was made.
    members = EVERY if FLAGS.members == "all" else FLAGS.members
    trained = segmenter.load_ensemble(user_path(FLAGS.run), members=members)
    evaluation = evaluator.evaluate(
        trained,
        map(read_slice, checked.pairs),
        len(checked.pairs),
        flips=FLAGS.flips,
        **evaluator.slice_metadata(
            checked.table, [pair.name for pair in checked.pairs]
        ),
    )
    evaluation["run"], evaluation["data"] = str(trained.path), str(data.absolute())
    evaluation["fingerprint"] = checked.fingerprint
    if not bundle.is_bundle(trained.path):  # which does not know its slices
        _, run = run_record.read_run(RunFolder(trained.path))
        evaluation["trained_on"] = run_record.trained_on(run, checked.digests)
    if "json" in outputs:
        write_json(outputs["json"], evaluation)
    if "report" in outputs:
        own = trained.only(list(evaluation["members"]))
        by_name = {pair.name: pair for pair in checked.pairs}
        report.write_report(
            outputs["report"],
            evaluation,
            title=f"{trained.path.name} on {data.absolute().name}",
            window_hu=trained.preprocessing["window_hu"],
            read=lambda names: [read_slice(by_name[name]) for name in names],
            segment=segmenter.LungSegmenter(own, flips=FLAGS.flips).stream,
        )
        progress.say(f"report: {outputs['report'] / 'index.html'}")
    progress.answer(format_summary(evaluation))


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of a run, or a bundle.", required=True)
    flags.DEFINE_string("data", None, "Folder of slices and masks.", required=True)
    flags.DEFINE_string(
        "members", "all", "all, last, best, greedy, average, or steps as 400,600."
    )
    flags.DEFINE_bool(
        "flips", False, "Average over mirror images: four times the work."
    )
    flags.DEFINE_string("json", "", "File to write the scores to.")
    flags.DEFINE_string("report", "", "Folder to write a page of the scores to.")
    flags.DEFINE_bool("overwrite", False, "Replace that file or page if it exists.")
    app.run(main, __doc__, when_interrupted="nothing was written.")
