"""The whole path of one command: data, training, ensemble, scores, report."""

import contextlib
import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.manifest import with_checksum
from lungseg_jax.checkpointing.weights import write_weights
from lungseg_jax.data import dataset as data_source
from lungseg_jax.data import preflight
from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.splits import split_names
from lungseg_jax.evaluation import evaluator
from lungseg_jax.evaluation.results import format_summary
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.ensemble import loading
from lungseg_jax.inference.ensemble.averaging import average_members
from lungseg_jax.inference.ensemble.members import AVERAGE, EVERY
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting import report
from lungseg_jax.runtime import cache, distributed, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path
from lungseg_jax.training import config, loop, run_record
from lungseg_jax.training.config import default_workdir
from lungseg_jax.training.run_folder import RunFolder, read_json, write_json
from lungseg_jax.training.run_record import Split


def run_experiment(c: ConfigDict, workdir: str = "", *, extend: bool = False) -> dict:
    """Does what is left to do of a run, and returns its evaluation.

    Args:
      c: what `config.default` has, resolved.
      workdir: the run folder; empty: `config.default_workdir`.
      extend: see `run_record.open_run`.

    Raises:
      UserError: bad input, before anything is compiled.
    """
    config.check_config(c)
    folder = RunFolder(user_path(workdir) if workdir else default_workdir(c))
    root = cache.cache_root(c.cache_dir)
    cache.enable_compilation_cache(root)
    with contextlib.ExitStack() as stack:
        with distributed.primary_first():
            source, split = _load(c, root)
            run_record.refuse_what_is_no_run(folder)
            if distributed.is_primary():
                stack.enter_context(folder.claimed())
            done = max(checkpoints.saved_steps(folder.checkpoints), default=0)
            run_record.open_run(c, folder, source, split, done=done, extend=extend)
        return _run(c, folder, source, split)


def _run(c: ConfigDict, folder: RunFolder, source: Dataset, split: Split) -> dict:
    progress.say(
        f"{source.variant} data: {len(split['train'])} slices to train, "
        f"{len(split['validation'])} to validate, {len(split['test'])} to test; "
        f"run folder {folder.path}"
    )
    if loop.is_finished(c, folder):
        progress.say("the training is finished already; nothing is trained again")
    else:
        loop.train(c, folder, source, split)
    with distributed.primary_first():
        if not _is_scored(c, folder):
            _score(c, folder, source, split)
        else:
            progress.say(format_summary(read_json(folder.evaluation)))
    if folder.page.exists():
        progress.say(f"report: {folder.page}")
    return read_json(folder.evaluation)


def _load(c: ConfigDict, root: Path) -> tuple[Dataset, Split]:
    """The data and their split."""
    source = data_source.load_dataset(
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
    config.check_data_and_devices(
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


def _score(c: ConfigDict, folder: RunFolder, source: Dataset, split: Split) -> None:
    """Writes evaluation.json and the report, of the run's own test split.

    The report is not worth failing for: the same command writes it another time.
    """
    if not _is_tuned(c, folder):
        _tune(c, folder, source, split)
    trained = loading.load_run(folder, EVERY)
    test = split["test"]
    table = source.checked.table
    evaluation = evaluator.evaluate(
        trained, source.slices(test), len(test), **evaluator.slice_metadata(table, test)
    )
    evaluation |= {"split": "test", "split_seed": c.data.split_seed}
    progress.say(format_summary(evaluation))
    folder.page.unlink(missing_ok=True)
    write_json(folder.evaluation, with_checksum(evaluation))
    try:
        report.write_report(
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
        loading.load_run(folder, EVERY)
    except UserError:  # of the average: the snapshots were verified
        return False
    return True


def _tune(c: ConfigDict, folder: RunFolder, source: Dataset, split: Split) -> None:
    """Writes tuning.json, and the average of several snapshots."""
    trained = loading.load_run(folder)
    if len(trained.members) > 1:
        images = loop.network_images(c, source, split["train"])
        average = average_members(
            trained, images, batch_size=c.train.batch_size, seed=c.seed
        )
        of = {"of": list(trained.members)}
        write_weights(folder.average, {AVERAGE: average}, of)
        members = {**trained.members, AVERAGE: average}
        trained = dataclasses.replace(trained, members=members)
    validation = split["validation"]
    tuning = tune(trained, lambda: source.slices(validation), len(validation))
    write_json(folder.tuning, with_checksum(tuning))
