"""The whole path of one command: data, training, ensemble, scores, report."""

import contextlib
import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lungseg_jax import (
    cache,
    checkpoints,
    config,
    processes,
    progress,
    report,
    run_record,
    scoring,
    snapshots,
    train,
)
from lungseg_jax.average import average_members
from lungseg_jax.config import default_workdir
from lungseg_jax.data import preflight
from lungseg_jax.data import source as data_source
from lungseg_jax.data.source import Source
from lungseg_jax.data.splits import split_names
from lungseg_jax.errors import UserError
from lungseg_jax.evaluation import summary
from lungseg_jax.paths import user_path
from lungseg_jax.run_folder import RunFolder, read_json, write_json
from lungseg_jax.run_record import Split
from lungseg_jax.seals import sealed
from lungseg_jax.segmenter import LungSegmenter
from lungseg_jax.selection import AVERAGE, EVERY
from lungseg_jax.tuning import tune
from lungseg_jax.weights import write_weights


def run(c: ConfigDict, workdir: str = "", *, extend: bool = False) -> dict:
    """Does what is left to do of a run, and returns its evaluation.

    Args:
      c: what `config.default` has, resolved.
      workdir: the run folder; empty: `config.default_workdir`.
      extend: see `run_record.open_run`.

    Raises:
      UserError: bad input, before anything is compiled.
    """
    config.check(c)
    folder = RunFolder(user_path(workdir) if workdir else default_workdir(c))
    root = cache.cache_root(c.cache_dir)
    cache.enable_compilation_cache(root)
    with contextlib.ExitStack() as stack:
        with processes.first_then_others():
            source, split = _load(c, root)
            run_record.refuse_what_is_no_run(folder)
            if processes.is_first():
                stack.enter_context(folder.claimed())
            done = max(checkpoints.saved_steps(folder.checkpoints), default=0)
            run_record.open_run(c, folder, source, split, done=done, extend=extend)
        return _run(c, folder, source, split)


def _run(c: ConfigDict, folder: RunFolder, source: Source, split: Split) -> dict:
    progress.say(
        f"{source.variant} data: {len(split['train'])} slices to train, "
        f"{len(split['validation'])} to validate, {len(split['test'])} to test; "
        f"run folder {folder.path}"
    )
    if train.is_finished(c, folder):
        progress.say("the training is finished already; nothing is trained again")
    else:
        train.train(c, folder, source, split)
    with processes.first_then_others():
        if not _is_scored(c, folder):
            _score(c, folder, source, split)
        else:
            progress.say(summary(read_json(folder.evaluation)))
    if folder.page.exists():
        progress.say(f"report: {folder.page}")
    return read_json(folder.evaluation)


def _load(c: ConfigDict, root: Path) -> tuple[Source, Split]:
    """The data and their split."""
    source = data_source.load(
        user_path(c.data.dir) if c.data.dir else None,
        cache=root,
        phantom_slices=c.data.phantom_slices,
        phantom_seed=c.data.phantom_seed,
    )
    split = split_names(
        source.names,
        validation_fraction=c.data.validation_fraction,
        test_fraction=c.data.test_fraction,
        seed=c.data.split_seed,
        patients=source.checked.table.patients,
    )
    preflight.check_split(source.checked, split)
    config.check_fit(
        c,
        dtype=source.dtype,
        training_slices=len(split["train"]),
        devices=jax.device_count(),
    )
    return source, split


def _is_scored(c: ConfigDict, folder: RunFolder) -> bool:
    """Whether scores and page are there, of all snapshots."""
    evaluation = run_record.read_evaluation(folder)
    if evaluation is None or not folder.page.exists():
        return False
    return list(evaluation["members"]) == [str(s) for s in config.snapshot_steps(c)]


def _score(c: ConfigDict, folder: RunFolder, source: Source, split: Split) -> None:
    """Writes evaluation.json and the report, of the run's own test split.

    The report is not worth failing for: the same command writes it another time.
    """
    if not _is_tuned(c, folder):
        _tune(c, folder, source, split)
    trained = snapshots.load_run(folder, EVERY)
    test = split["test"]
    table = source.checked.table
    evaluation = scoring.score(
        trained, source.slices(test), len(test), **scoring.known_of(table, test)
    )
    evaluation |= {"split": "test", "split_seed": c.data.split_seed}
    progress.say(summary(evaluation))
    folder.page.unlink(missing_ok=True)
    write_json(folder.evaluation, sealed(evaluation))
    try:
        report.write(
            folder.report,
            evaluation,
            title=f"{c.name}: {c.model.name} U-Net on {source.variant} data",
            window_hu=c.data.window_hu,
            read=source.slices,
            segment=LungSegmenter(trained.only(list(evaluation["members"]))).stream,
            rows=folder.read_metrics(),
        )
    except OSError as e:
        progress.say(f"the report could not be written: {e}")


def _is_tuned(c: ConfigDict, folder: RunFolder) -> bool:
    """Whether what is decided on the validation split is there, of all snapshots."""
    steps = config.snapshot_steps(c)
    if run_record.read_tuning(folder, steps) is None:
        return False
    try:
        snapshots.load_run(folder, EVERY)
    except UserError:  # of the average: the snapshots were verified
        return False
    return True


def _tune(c: ConfigDict, folder: RunFolder, source: Source, split: Split) -> None:
    """Writes tuning.json, and the average of several snapshots."""
    trained = snapshots.load_run(folder)
    if len(trained.members) > 1:
        images = train.network_images(c, source, split["train"])
        average = average_members(
            trained, images, batch_size=c.train.batch_size, seed=c.seed
        )
        of = {"of": list(trained.members)}
        write_weights(folder.average, {AVERAGE: average}, of)
        members = {**trained.members, AVERAGE: average}
        trained = dataclasses.replace(trained, members=members)
    validation = split["validation"]
    tuning = tune(trained, lambda: source.slices(validation), len(validation))
    write_json(folder.tuning, sealed(tuning))
