"""Verification of a run: every file, and every array of every checkpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lungseg_jax.checkpointing.checkpoints import saved_steps, verify_checkpoint
from lungseg_jax.checkpointing.checksums import has_valid_checksum
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.files import read_json
from lungseg_jax.training.config import preprocessing_of
from lungseg_jax.training.run import Run, UnsupportedRunError
from lungseg_jax.training.run_folder import RunFolder


def verify_run(folder: RunFolder) -> list[UserError]:
    """Verify a run, print a line for each part, and return the faults.

    An `UnsupportedRunError` among them is not of the files.

    Raises:
      UserError: the folder does not hold a run.
    """
    folder.require()
    faults: list[UserError] = []
    for name, verify in _parts(folder):
        try:
            progress.say(f"{name:24} {verify()}")
        except UnsupportedRunError as e:
            faults.append(e)
            progress.say(f"{name:24} NOT USABLE HERE")
        except UserError as e:
            faults.append(e)
            progress.say(f"{name:24} FAULTY")
    return faults


def _parts(folder: RunFolder) -> Iterator[tuple[str, Callable[[], str]]]:
    opened: list[Run] = []  # by the first part; others need it

    def open_run() -> str:
        opened.append(Run.open(folder))
        return f"of {opened[0].config.name}"

    yield "config.json, run.json", open_run
    if opened:
        yield "metrics.jsonl", lambda: _verify_metrics(opened[0])
    else:
        progress.say("without them, only checksums can be verified")
    for step in saved_steps(folder.checkpoints):
        yield (
            f"checkpoints/{step}",
            lambda step=step: f"{verify_checkpoint(folder.checkpoints, step)} arrays",
        )
    if opened:
        yield "snapshots", lambda: _verify_snapshots(opened[0])
    if opened and folder.average.exists():
        yield folder.average.name, lambda: _verify_average(opened[0])
    for file, count in ((folder.tuning, "validation"), (folder.evaluation, "scored")):
        if file.exists():
            yield (
                file.name,
                lambda file=file, count=count: f"{_require_intact(file)['n']} {count}",
            )


def _verify_metrics(run: Run) -> str:
    rows = run.folder.read_metrics()
    steps = [row["step"] for row in rows]
    if steps != sorted(steps):
        raise UserError(f"{run.folder.metrics} is damaged: its steps are out of order.")
    scored = {row["step"] for row in rows if row["kind"] == "snapshot"}
    missing = sorted(set(run.snapshots) - scored)
    if missing:
        raise UserError(
            f"{run.folder.metrics} has lost the row of snapshot {missing[0]}."
        )
    return f"{len(rows)} rows"


def _verify_snapshots(run: Run) -> str:
    lost = [str(step) for step in run.lost_snapshots]
    if lost:
        raise UserError(f"{run.folder.checkpoints} has lost {', '.join(lost)}.")
    return f"{len(run.snapshots)} of {len(run.planned_snapshots)}"


def _verify_average(run: Run) -> str:
    like = abstract_variables(
        make_model(**run.config.model),
        channels=preprocessing_of(run.config).channels,
    )
    _, snapshots = run.read_average(like)
    return f"of {pluralize(len(snapshots), 'snapshot')}"


def _require_intact(file: Path) -> dict:
    content = read_json(file)
    if not has_valid_checksum(content):
        raise UserError(
            f"{file} was changed since it was written.",
            remedy="delete it; the training command recreates it.",
        )
    return content
