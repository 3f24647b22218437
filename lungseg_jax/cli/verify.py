"""Checks that a run or a bundle is whole: every file, every array of every checkpoint.

    lungseg verify --run=runs/incp_snapshot-phantom
    lungseg verify --run=BUNDLE

Prints a line for each part. Exit status 0: all of it is what was written; 2: it is not,
with what is damaged or lost and what to do.

`python -m lungseg_jax.cli.verify` is the same command.
"""

from lungseg_jax.runtime import signals

if __name__ == "__main__":
    signals.install_handlers()

from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.manifest import has_valid_checksum
from lungseg_jax.checkpointing.weights import read_weights
from lungseg_jax.cli import app
from lungseg_jax.inference.ensemble import bundle
from lungseg_jax.inference.ensemble.trained import abstract_members
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.files import user_path
from lungseg_jax.training import run_record
from lungseg_jax.training.config import snapshot_steps
from lungseg_jax.training.run_folder import RunFolder, read_json

FLAGS = flags.FLAGS


def verify_run(folder: RunFolder) -> list[UserError]:
    """The faults of a run, said as they are found; none where it is whole.

    Raises:
      UserError: it is no run at all.
    """
    folder.require()
    faults = []
    for name, check in _parts(folder):
        try:
            progress.say(f"{name:24} {check()}")
        except UserError as e:
            faults.append(e)
            progress.say(f"{name:24} DAMAGED")
    return faults


def _parts(folder: RunFolder) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "config.json, run.json", lambda: _record(folder)
    yield "metrics.jsonl", lambda: _metrics(folder)
    saved = checkpoints.saved_steps(folder.checkpoints)
    for step in saved:
        yield f"checkpoints/{step}", lambda step=step: _checkpoint(folder, step)
    yield "snapshots", lambda: _snapshots(folder, saved)
    if folder.average.exists():
        yield folder.average.name, lambda: _average(folder)
    for file, count in ((folder.tuning, "validation"), (folder.evaluation, "scored")):
        if file.exists():
            yield file.name, lambda f=file, count=count: f"{_whole(f)['n']} {count}"


def _record(folder: RunFolder) -> str:
    config, _ = run_record.read_run(folder)
    return f"of {config.name}"


def _metrics(folder: RunFolder) -> str:
    rows = folder.read_metrics()
    steps = [row["step"] for row in rows]
    if steps != sorted(steps):
        raise UserError(f"{folder.metrics} is damaged: its steps are not in order.")
    config, _ = run_record.read_run(folder)
    scored = {row["step"] for row in rows if row["kind"] == "snapshot"}
    saved = set(checkpoints.saved_steps(folder.checkpoints))
    lost = sorted(saved & set(snapshot_steps(config)) - scored)
    if lost:
        raise UserError(f"{folder.metrics} has lost the row of snapshot {lost[0]}.")
    return f"{len(rows)} rows"


def _checkpoint(folder: RunFolder, step: int) -> str:
    return f"{checkpoints.verify_checkpoint(folder.checkpoints, step)} arrays"


def _snapshots(folder: RunFolder, saved: list[int]) -> str:
    config, _ = run_record.read_run(folder)
    due = run_record.due_snapshots(config, folder, saved)
    lost = [str(step) for step in due if step not in saved]
    if lost:
        raise UserError(f"{folder.checkpoints} has lost {', '.join(lost)}.")
    return f"{len(due)} of {len(snapshot_steps(config))}"


def _average(folder: RunFolder) -> str:
    config, _ = run_record.read_run(folder)
    like = abstract_members(config.model.to_dict(), config.data.preprocessing)
    _, about = read_weights(folder.average, like)
    return f"of {pluralize(len(about['of']), 'snapshot')}"


def _whole(file: Path) -> dict:
    content = read_json(file)
    if not has_valid_checksum(content):
        raise UserError(
            f"{file} was changed since it was written.",
            remedy="delete it; the training command makes it again.",
        )
    return content


def main(words: list[str]) -> None:
    app.positional(words, [])
    if bundle.is_bundle(user_path(FLAGS.run)):
        for name in bundle.verify_bundle(user_path(FLAGS.run)):
            progress.say(f"{name:24} whole")
        print("the bundle is whole")
        return
    faults = verify_run(RunFolder(user_path(FLAGS.run)))
    if faults:
        raise UserError(
            f"{FLAGS.run} is not whole:\n"
            + "\n".join(dict.fromkeys(f"  {e.what}" for e in faults)),
            rule="every file is what was written.",
            remedy=next((e.remedy for e in faults if e.remedy), ""),
        )
    print("the run is whole")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of a run, or a bundle.", required=True)
    app.run(main, __doc__, when_interrupted="nothing was changed.")
