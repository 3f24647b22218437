"""Writes a bundle: a trained ensemble as one folder to share.

    lungseg export --run=runs/incp_snapshot-phantom lungs
    lungseg export --run=RUN --members=average small
    lungseg predict --run=lungs slice.tif mask.png

BUNDLE is a folder that does not exist yet: weights as safetensors, a JSON description, a
model card, checksums, and a StableHLO program that runs without this package. `predict`,
`evaluate` and `verify` take it as --run.
"""

from lungseg_jax import stopping

if __name__ == "__main__":
    stopping.listen()

from absl import flags

from lungseg_jax import bundle, cli, progress, run_record, snapshots
from lungseg_jax.errors import counted
from lungseg_jax.paths import user_path
from lungseg_jax.run_folder import RunFolder

FLAGS = flags.FLAGS


def main(words: list[str]) -> None:
    (path,) = cli.positional(words, ["BUNDLE"])
    folder = RunFolder(user_path(FLAGS.run))
    config, run = run_record.read_run(folder)
    trained = snapshots.load_run(folder, FLAGS.members)
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
    bundle.write(path, trained, record)
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    print(f"wrote {path}: {counted(len(trained.members), 'network')}, {size:.1f} MB")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "members", "all", "all, last, best, greedy, average, or steps as 400,600."
    )
    cli.run(main, __doc__, when_interrupted="nothing was written.")
