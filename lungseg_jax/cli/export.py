"""Write a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg predict --run=lungs slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` accept it as --run.
"""

from absl import flags

from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble.bundle import write_bundle
from lungseg_jax.inference.ensemble.loading import load_run
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import pluralize
from lungseg_jax.runtime.files import user_path
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

FLAGS = flags.FlagValues()
app.define_run(FLAGS, "Run folder.")
app.define_members(FLAGS)


def export(words: list[str]) -> None:
    (path,) = app.positional(words, ["BUNDLE"])
    run = Run.open(RunFolder(user_path(FLAGS.run)))
    trained = load_run(run, FLAGS.members)
    evaluation = run.evaluation
    if evaluation and list(evaluation["members"]) != list(trained.members):
        evaluation = None
    if not evaluation:
        progress.say(
            "the run has no scores of these members, so the model card has none"
        )
    record = {
        "name": run.config.name,
        "data": run.record["data"],
        "versions": run.record["versions"],
        "evaluation": evaluation,
    }
    write_bundle(path, trained, record)
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(f"wrote {path}: {pluralize(len(trained.members), 'network')}, {size:.1f} MB")


def main() -> None:
    app.run(export, FLAGS, __doc__)
