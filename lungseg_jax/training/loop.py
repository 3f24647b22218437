"""Training: build the functions, restore the newest checkpoint, loop over updates."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.checkpointing.remote_checkpoints import (
    AnyCheckpoints,
    open_checkpoints,
)
from lungseg_jax.data.sampling import whole_batches
from lungseg_jax.models import make_model
from lungseg_jax.models.receptive_field import receptive_field
from lungseg_jax.models.variables import count_parameters
from lungseg_jax.runtime import device_mesh, job, memory, progress, signals
from lungseg_jax.runtime.compilation import platform_of
from lungseg_jax.training.batch_stats import make_precise_batch_stats, pool_batch_stats
from lungseg_jax.training.config import (
    micro_batch_size,
    preprocessing_of,
    snapshot_steps,
)
from lungseg_jax.training.feeds import Feed, feed_of
from lungseg_jax.training.knobs import flat
from lungseg_jax.training.log import TrainingLog
from lungseg_jax.training.programs import (
    init_of,
    schedule_of,
    train_steps_arguments,
    train_steps_of,
)
from lungseg_jax.training.run_data import RunData
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.scaling import memory_remedy
from lungseg_jax.training.state import TrainState
from lungseg_jax.training.tracking import Tracking
from lungseg_jax.training.validation import make_validate


def is_finished(config: ConfigDict, folder: RunFolder) -> bool:
    """Whether the last update was saved, and its checkpoint is intact."""
    last = config.train.total_steps
    if last not in checkpoints.saved_steps(folder.checkpoints):
        return False
    try:
        checkpoints.verify_checkpoint(folder.checkpoints, last)
    except CorruptCheckpointError:
        return False
    return True


def train(
    *,
    config: ConfigDict,
    folder: RunFolder,
    data: RunData,
    initial: Callable[[], Any] | None,
    tracking: Tracking,
) -> None:
    """Train until `config.train.total_steps`, from the newest checkpoint on.

    Args:
      config: the configuration.
      folder: the run folder.
      data: the data.
      initial: returns the variables to start from; None for random ones.
      tracking: follows the training.

    Raises:
      UserError: the training diverged, or the memory or the disk is full.
      Stopped: a signal asked for the end; the last update is saved.
    """
    snapshots = snapshot_steps(config)
    with _reported(config):
        training = _build(config, data)
    with (
        open_checkpoints(folder.checkpoints, snapshots=snapshots) as saved,
        _reported(config),
    ):
        shapes = training.init.eval_shape()
        progress.say(_description(training, shapes))
        saved.check_room(shapes.arrays)
        # XLA does not hold the interpreter lock.
        with ThreadPoolExecutor(1) as compiler:
            compilation = compiler.submit(_compile, training, shapes)
            state, notes = _first_state(training, shapes, saved, initial)
            training = dataclasses.replace(training, train_steps=compilation.result())
        start = int(state.step)
        log = TrainingLog(
            folder,
            training.schedule,
            total=config.train.total_steps,
            start=start,
            notes=notes,
            batch_names=training.batch_names,
            tracking=tracking,
        )
        with tracking.following(folder, flat(config.to_dict()), start=start):
            try:
                _loop(training, state, log, tracking, saved)
            finally:
                log.flush()


@contextlib.contextmanager
def _reported(c: ConfigDict) -> Iterator[None]:
    """Turn what fails on the devices in the block into plain errors."""
    with job.ending_together(), memory.reported(memory_remedy(c)):
        yield


@dataclasses.dataclass(frozen=True)
class _Training:
    """The functions and the data of a training.

    Attributes:
      config: the configuration.
      feed: the slices of the training split, and then the extra ones.
      split_size: how many of them are of the training split.
      schedule: learning rate by step.
      init: returns the state before the first update.
      train_steps: see `make_train_steps`.
      precise_batch_stats: see `make_precise_batch_stats`.
      validate: see `make_validate`.
      mesh: the devices that share a batch.
    """

    config: ConfigDict
    feed: Feed
    split_size: int
    schedule: optax.Schedule
    init: Callable[[], TrainState]
    train_steps: Callable
    precise_batch_stats: Callable
    validate: Callable[[TrainState], dict[str, float | None]]
    mesh: jax.sharding.Mesh

    def batch_names(self, step: int) -> list[str]:
        """Return the slices of the update after `step`."""
        return [self.feed.slices.names[i] for i in self.feed.batch(step)]


def _build(c: ConfigDict, data: RunData) -> _Training:
    mesh = device_mesh.make_mesh(device_mesh.devices_for(micro_batch_size(c)))
    replicated = device_mesh.replicated(mesh)
    feed = feed_of(c, data, mesh)
    return _Training(
        config=c,
        feed=feed,
        split_size=len(data.split["train"]),
        schedule=schedule_of(c),
        init=init_of(c, mesh),
        train_steps=train_steps_of(c, mesh, gather=feed.gather),
        precise_batch_stats=make_precise_batch_stats(
            make_model(**c.model),
            normalize=preprocessing_of(c).to_unit,
            gather=feed.gather,
            sharding=replicated,
        ),
        validate=make_validate(c, mesh, data),
        mesh=mesh,
    )


def _description(training: _Training, shapes: TrainState) -> str:
    """Describe the network, its data and the devices, in a line."""
    c, used = training.config, training.mesh.size
    devices = f"{used} {platform_of(device_mesh.replicated(training.mesh))}"
    if used < jax.device_count():
        devices += f" of {jax.device_count()}, which divide the batch evenly"
    parts = f" in {c.train.accumulate} parts" if c.train.accumulate > 1 else ""
    return (
        f"{c.model.name} U-Net, "
        f"{count_parameters((shapes.params, shapes.batch_stats)):,} parameters, "
        f"receptive field {receptive_field(make_model(**c.model))} pixels; "
        f"{len(training.feed.slices)} slices at {c.data.image_size}x{c.data.image_size}; "
        f"{c.train.total_steps} steps of {c.train.batch_size}{parts} on {devices}"
    )


def _first_state(
    training: _Training,
    shapes: TrainState,
    saved: AnyCheckpoints,
    initial: Callable[[], Any] | None,
) -> tuple[TrainState, dict]:
    """Restore the newest state and its notes; without an intact one, start anew."""
    step, arrays, notes = saved.restore(shapes.arrays)
    job.require_common(step, "the newest intact checkpoint is of step")
    if step:
        progress.say(f"resuming after step {step}")
        return shapes.at(step, arrays), notes
    state = training.init()
    if initial:
        state = state.replace(**device_mesh.place(initial(), state.step.sharding))
    return state, notes


def _loop(
    training: _Training,
    state: TrainState,
    log: TrainingLog,
    tracking: Tracking,
    saved: AnyCheckpoints,
) -> None:
    """Apply the updates that are left.

    After an update, in this order: batch statistics are re-estimated at the end of a
    cycle; the log and validation, where due; the checkpoint, where due. A checkpoint thus
    holds what the next update sees, and a row of metrics.jsonl precedes the checkpoint of
    its step.
    """
    c, total = training.config, training.config.train.total_steps
    snapshots, step, must_stop = snapshot_steps(c), int(state.step), False
    with (
        contextlib.closing(training.feed),
        signals.defer_signals(),
        progress.bar("training", total, done=step, unit="step") as bar,
    ):
        while step < total and not must_stop:
            # Up to the next step after which something is due, in one dispatch.
            count = _updates_at_once(c, snapshots, step)
            state, metrics = _dispatch(training, state, step, count)
            step += count
            if step < total:
                upcoming = _updates_at_once(c, snapshots, step)
                training.feed.prepare(step, upcoming, metrics)
            log.add(metrics, count)
            bar.update(count)

            is_snapshot = step in snapshots
            save_due = is_snapshot or step % c.train.save_every == 0
            row_due = save_due or step % c.train.log_every == 0
            if is_snapshot and c.train.population_stats:
                state = _with_population_stats(training, state)
            if row_due:
                log.write(step, bar)
            if is_snapshot or step % c.train.validate_every == 0:
                log.write_scores(step, is_snapshot, training.validate(state))
            if is_snapshot:
                tracking.add_picture(step, state.variables)
            must_stop = job.any_process(signals.requested, ask=row_due)
            if save_due or must_stop:
                log.flush()
                saved.save(step, state.arrays, log.notes())
        saved.wait()  # before a signal could end it
        if must_stop:
            progress.say(f"saved after step {step} of {total}")
            signals.stop()


def _with_population_stats(training: _Training, state: TrainState) -> TrainState:
    """Return the state with batch statistics re-estimated over the training split."""
    if state.batch_stats is None:
        return state
    c, feed = training.config, training.feed
    batches = whole_batches(training.split_size, micro_batch_size(c), seed=c.seed)
    stats = pool_batch_stats(
        training.precise_batch_stats, state.variables, feed.parts(batches)
    )
    return state.replace(batch_stats=stats)


def _compile(training: _Training, state: TrainState) -> Callable:
    """Compile `train_steps` for the shapes that it will be called with."""
    arguments = train_steps_arguments(
        training.config,
        training.mesh,
        state,
        training.feed.images,
        training.feed.masks,
    )
    return training.train_steps.lower(*arguments).compile()


def _dispatch(training: _Training, state: TrainState, step: int, count: int):
    """Apply `count` updates after `step`."""
    inputs = training.feed.take(step, count)
    return training.train_steps(state, *inputs, np.int32(count))


def _updates_at_once(c: ConfigDict, snapshots: Sequence[int], step: int) -> int:
    """Return the number of updates of the dispatch after `step`.

    They end where something is due: a row, validation, a checkpoint or a snapshot.
    """
    intervals = c.train.log_every, c.train.validate_every, c.train.save_every
    regular = [(step // interval + 1) * interval for interval in intervals]
    due = min(*regular, *(end for end in snapshots if end > step))
    return min(c.train.steps_per_dispatch, due - step)
