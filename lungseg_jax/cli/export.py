"""Writes a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg predict --run=lungs slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` take it as --run.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble import bundle, loading
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import pluralize
from lungseg_jax.runtime.files import user_path
from lungseg_jax.training import run_record
from lungseg_jax.training.run_folder import RunFolder

FLAGS = flags.FLAGS


def main(words: list[str]) -> None:
    (path,) = app.positional(words, ["BUNDLE"])
    folder = RunFolder(user_path(FLAGS.run))
    config, run = run_record.read_run(folder)
    trained = loading.load_run(folder, FLAGS.members)
    evaluation = run_record.read_evaluation(folder)
    is_of_these = evaluation and list(evaluation["members"]) == list(trained.members)
    if not is_of_these:
        progress.say(
            "the scores of the run are not of these members: the card has none"
        )
    record = {
        "name": config.name,
        "data": run["data"],
        "versions": run["versions"],
        "evaluation": evaluation if is_of_these else None,
    }
    bundle.write_bundle(path, trained, record)
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(f"wrote {path}: {pluralize(len(trained.members), 'network')}, {size:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "members", "all", "all, last, best, greedy, average, or steps as 400,600."
    )
    app.run(main, __doc__, when_interrupted="nothing was written.")
