"""The whole pipeline: train, tune, evaluate, report."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.checkpointing.weights import write_weights
from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.sampling import whole_batches
from lungseg_jax.data.splits import Split
from lungseg_jax.evaluation.results import format_summary
from lungseg_jax.evaluation.run_scores import evaluate_on_test, tune_on_validation
from lungseg_jax.inference.ensemble.averaging import average_members
from lungseg_jax.inference.ensemble.initial_weights import load_initial_weights
from lungseg_jax.inference.ensemble.members import AVERAGE, EVERY
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.reporting.preview import draw_sheet, write_preview
from lungseg_jax.reporting.preview_path import preview_path
from lungseg_jax.reporting.run_page import write_run_page
from lungseg_jax.runtime import (
    cache,
    compilation,
    devices,
    job,
    memory,
    progress,
)
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import write_json
from lungseg_jax.training import config, loop, run_record
from lungseg_jax.training.augmented import augmented_slices
from lungseg_jax.training.placement import room_for_slices
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_data import (
    RunData,
    digests_of,
    load_run_data,
    network_slices,
    require_outside_slices,
)
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.scaling import (
    batch_on_one_device,
    fit_to_devices,
    memory_remedy,
)
from lungseg_jax.training.trackers import require_trackers
from lungseg_jax.training.tracking import Tracking
from lungseg_jax.training.validation import make_segment

PREVIEWED = 32  # slices of a preview, about
DRAWN = 8  # validation slices that trackers show, at most


def run_experiment(
    c: ConfigDict,
    workdir: str = "",
    *,
    extend: bool = False,
    track: Sequence[str] = (),
    scaled_to: int | None = None,
) -> dict:
    """Carry out what is left of a run and return its evaluation.

    A signal ends it at once; `lungseg train` saves first.

    Args:
      c: a complete configuration, such as `default_config()`.
      workdir: the run folder; empty for `default_workdir`.
      extend: continue a finished run to a later `train.total_steps`.
      track: names of trackers that follow the training: tensorboard, wandb, mlflow.
      scaled_to: with `train.batch_per_device`, the devices that a new run is scaled to;
        None for those that there are.

    Returns:
      The content of evaluation.json in the run folder.

    Raises:
      UserError: bad input, before anything is compiled.
    """
    with job.ending_together(), contextlib.ExitStack() as stack:
        config.check_config(c)
        folder = RunFolder(workdir or config.default_workdir(c))
        require_trackers(track, folder.path)
        if folder.holds_run:
            scaled_to = Run.open(folder).record.get("scaled_to_devices")
            c = run_record.as_started(c, folder)
        else:
            config.check_effects(c)
            require_outside_slices(folder.path, c)
        devices.warn_of_idle_gpu()
        c, used = fit_to_devices(c, scaled_to)
        cache_root = cache.cache_root(c.cache_dir)
        compilation.enable_compilation_cache(cache_root)
        room = room_for_slices()
        with job.primary_first():
            # Refuse a folder before phantoms are drawn, which may take minutes.
            if job.is_primary():
                folder.require_writable()
            run = run_record.run_to_resume(c, folder, extend=extend)
            split = run.record["split"] if run else None
            data = load_run_data(c, cache_root, room=room, recorded=split)
            load = functools.cache(functools.partial(_load_initial, c, data))
            # A run under way needs them only if none of its checkpoints is intact.
            is_under_way = run and run.saved_steps
            about = load()[1] if c.init and not is_under_way else None
            if job.is_primary():
                stack.enter_context(folder.claimed())
            run_record.register_run(c, folder, data, run, initial=about, devices=used)
        initial = functools.partial(_load_recorded, load, folder) if c.init else None
        _train(c, folder, data, initial, track)
        job.meet()
        evaluation = _finish(folder, data)
        job.meet()
    if folder.page.exists():
        progress.say(f"report: {folder.page}")
    return evaluation


def preview(c: ConfigDict, path: str) -> None:
    """Write a sheet of the slices that the first updates see; nothing is trained.

    Args:
      c: a complete configuration.
      path: a PNG, which must not exist.

    Raises:
      UserError: bad input.
    """
    target = preview_path(path)
    config.check_config(c)
    c, _ = fit_to_devices(c)
    require_outside_slices(target, c)
    cache_root = cache.cache_root(c.cache_dir)
    compilation.enable_compilation_cache(cache_root)
    data = load_run_data(c, cache_root, room=room_for_slices())
    columns = min(c.train.batch_size, 8)
    rows = -(-PREVIEWED // c.train.batch_size)
    images, masks = augmented_slices(
        c, data.dataset, data.split["train"], data.extra, steps=rows
    )
    count = len(images) // columns * columns
    write_preview(target, images[:count], masks[:count], columns=columns)
    progress.say(f"the first {count} training slices: {target}")


def _load_initial(c: ConfigDict, data: RunData) -> tuple[Any, dict]:
    """Load the weights that a run starts from, and describe them."""
    test = digests_of(data.dataset, data.split["test"])
    initial, about = load_initial_weights(
        c.init, c.model.to_dict(), config.preprocessing_of(c), test
    )
    progress.say(f"starting from the network {about['member']} of {c.init}")
    return initial, about


def _load_recorded(load: Callable[[], tuple[Any, dict]], folder: RunFolder) -> Any:
    """Return the variables of `_load_initial`, if they are those that run.json records."""
    variables, about = load()
    run_record.require_same_weights(Run.open(folder), about)
    return variables


def _train(
    c: ConfigDict,
    folder: RunFolder,
    data: RunData,
    initial: Callable[[], Any] | None,
    track: Sequence[str],
) -> None:
    dataset, split = data.dataset, data.split
    progress.say(
        f"{dataset.variant} data: {len(split['train'])} slices to train, "
        f"{len(split['validation'])} to validate, {len(split['test'])} to test; "
        f"run folder {folder.path}"
    )
    if left_out := split.get("left_out"):
        progress.say(
            "left out, as their labels have the air around the body as lung: "
            f"{', '.join(left_out)} (config.data.leave_out_air)"
        )
    finished = loop.is_finished(c, folder)
    # The others may not see the last files at once on NFS.
    if not job.any_process(lambda: not finished, ask=True):
        progress.say("the training is finished; nothing is trained again")
        return
    progress.say(str(data.placement))
    loop.train(
        config=c,
        folder=folder,
        data=data,
        initial=initial,
        tracking=Tracking(track, _make_draw(c, dataset, split)),
    )


def _make_draw(
    c: ConfigDict, dataset: Dataset, split: Split
) -> Callable[[Any], np.ndarray] | None:
    """Create `draw(variables)`, a sheet of validation slices; None without that split."""
    names = split["validation"]
    if not names:
        return None
    shown = names[:: -(-len(names) // DRAWN)]
    make_once = functools.cache(lambda: make_segment(c, dataset, shown))
    return lambda variables: draw_sheet(*make_once()(variables))


def _finish(folder: RunFolder, data: RunData) -> dict:
    """Tune, evaluate and report, unless that is done for all snapshots.

    The processes of a job share the slices; the primary process writes the files. Each
    returns the evaluation, as the others may not see the file at once on NFS.
    """
    run = Run.open(folder)
    scored = run.evaluation
    trained = _load_tuned(run)
    is_scored = (
        scored and folder.page.exists() and list(scored["members"]) == run.planned_names
    )
    # Anything lost other than snapshots is made again.
    is_done = is_scored and (trained is not None or bool(run.lost_snapshots))
    if not job.any_process(lambda: not is_done, ask=True):
        progress.say(format_summary(scored))
        return scored
    # All have read before one of them writes.
    if job.any_process(lambda: trained is None, ask=True):
        trained = _tune(run, data)
    evaluation = _evaluate(run, trained, data)
    if job.is_primary():
        _report(run, trained, evaluation, data.dataset)
    return evaluation


def _load_tuned(run: Run) -> TrainedEnsemble | None:
    """Load all snapshots and their average; None if they have not been tuned."""
    if not run.tuning or len(run.snapshots) < len(run.planned_snapshots):
        return None
    try:
        return load_run(run, EVERY)
    except UserError:  # the average is damaged: the snapshots were verified
        return None


def _tune(run: Run, data: RunData) -> TrainedEnsemble:
    """Write tuning.json, and the average of several snapshots; return all of them."""
    folder, trained = run.folder, load_run(run)
    if len(trained.members) > 1:
        average = _average(run.config, trained, data)
        if job.is_primary():
            about = {"of": list(trained.members)}
            write_weights(folder.average, {AVERAGE: average}, about)
        members = {**trained.members, AVERAGE: average}
        trained = dataclasses.replace(trained, members=members)
    tuning = run_record.versioned(tune_on_validation(trained, run, data.dataset))
    if job.is_primary():
        write_json(folder.tuning, tuning)
    return dataclasses.replace(trained, tuning=tuning)


def _average(c: ConfigDict, trained: TrainedEnsemble, data: RunData) -> Any:
    slices = network_slices(c, data.dataset, data.split["train"])
    batches = whole_batches(len(slices), batch_on_one_device(c), seed=c.seed)

    def read(some: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        if data.placement.name == "copied":
            return [(slices.stack()["image"], some.astype(np.int32))]
        return slices.image_batches(some)

    with memory.reported(memory_remedy(c)):
        return average_members(trained, batches, read)


def _evaluate(run: Run, trained: TrainedEnsemble, data: RunData) -> dict:
    """Write evaluation.json for the run's test split, and return its content."""
    evaluation = run_record.versioned(evaluate_on_test(trained, run, data.dataset))
    progress.say(format_summary(evaluation))
    if job.is_primary():
        run.folder.page.unlink(missing_ok=True)
        write_json(run.folder.evaluation, evaluation)
    return evaluation


def _report(
    run: Run, trained: TrainedEnsemble, evaluation: dict, dataset: Dataset
) -> None:
    """Write the page. It is not worth failing for: `lungseg report` writes it later."""
    try:
        write_run_page(run, trained, evaluation, dataset)
    except (OSError, UserError) as e:
        progress.say(f"the report could not be written: {e}")
