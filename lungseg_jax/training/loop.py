"""Training: build the functions, restore the newest checkpoint, loop over updates."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.checkpoints import Checkpoints
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.preprocessing import to_unit
from lungseg_jax.data.sampling import mixed_batch_indices, whole_batches
from lungseg_jax.data.splits import Split
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import count_parameters
from lungseg_jax.runtime import distributed, progress, signals
from lungseg_jax.runtime.compilation import platform_of
from lungseg_jax.training.batch_stats import make_precise_batch_stats
from lungseg_jax.training.config import preprocessing_of, snapshot_steps
from lungseg_jax.training.knobs import flat
from lungseg_jax.training.log import TrainingLog
from lungseg_jax.training.programs import (
    init_of,
    schedule_of,
    train_steps_arguments,
    train_steps_of,
)
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.state import TrainState
from lungseg_jax.training.tracking import Tracking
from lungseg_jax.training.validation import make_validate, network_arrays


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
    config: ConfigDict,
    folder: RunFolder,
    dataset: Dataset,
    split: Split,
    extra: Dataset | None = None,
    initial: Any = None,
    tracking: Tracking | None = None,
) -> None:
    """Train until `config.train.total_steps`, from the newest checkpoint on.

    Args:
      config: the configuration.
      folder: the run folder.
      dataset: the data.
      split: the names of its slices.
      extra: further slices, all of which are mixed into the batches.
      initial: variables to start from; None for random ones.
      tracking: follows the training.

    Raises:
      UserError: the training diverged, or the disk is full.
      Stopped: a signal asked for the end; the last update is saved.
    """
    training = _build(config, dataset, split, extra)
    tracking = tracking or Tracking()
    with Checkpoints(folder.checkpoints, snapshots=snapshot_steps(config)) as saved:
        training, state, log = _restore(training, folder, saved, initial, tracking)
        options = flat(config.to_dict())
        with tracking.following(folder, options, start=int(state.step)):
            _loop(training, state, log, saved)


@dataclasses.dataclass(frozen=True)
class _Training:
    """The functions and the data of a training.

    Attributes:
      config: the configuration.
      names: the slices of the training split, and then the extra ones.
      extra: the number of extra slices.
      arrays: all of them on the device, "image" `[n s s c]` and "mask" `[n s s]`.
      schedule: learning rate by step.
      init: returns the state before the first update.
      train_steps: see `make_train_steps`.
      precise_batch_stats: see `make_precise_batch_stats`.
      validate: returns the scores of a state on the validation split.
      batch_sharding: sharding of the indices `[k b]`.
    """

    config: ConfigDict
    names: Sequence[str]
    extra: int
    arrays: Mapping[str, jax.Array]
    schedule: Callable
    init: Callable[[], TrainState]
    train_steps: Callable
    precise_batch_stats: Callable
    validate: Callable[[TrainState], dict[str, float]]
    batch_sharding: jax.sharding.Sharding

    def batch(self, step: int) -> np.ndarray:
        """Return the indices `[b]` of the update after `step`."""
        return mixed_batch_indices(
            step,
            n=len(self.names) - self.extra,
            extra=self.extra,
            share=self.config.data.extra_share,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed,
        )

    def batch_names(self, step: int) -> list[str]:
        """Return the slices of the update after `step`."""
        return [self.names[i] for i in self.batch(step)]


def _build(
    c: ConfigDict, dataset: Dataset, split: Split, extra: Dataset | None
) -> _Training:
    mesh = distributed.make_mesh(distributed.devices_for(c.train.batch_size))
    replicated = distributed.replicated(mesh)
    arrays = network_arrays(c, dataset, split["train"], extra)
    extra_names = extra.names if extra else []
    model = make_model(**c.model)
    return _Training(
        config=c,
        names=[*split["train"], *extra_names],
        extra=len(extra_names),
        arrays=jax.device_put(arrays, replicated),
        schedule=schedule_of(c),
        init=init_of(c, mesh),
        train_steps=train_steps_of(c, mesh),
        precise_batch_stats=make_precise_batch_stats(
            model,
            normalize=functools.partial(to_unit, **preprocessing_of(c)),
            sharding=replicated,
        ),
        validate=make_validate(c, model, mesh, dataset, split["validation"]),
        batch_sharding=distributed.by_example(mesh, axis=1),
    )


def _restore(
    training: _Training,
    folder: RunFolder,
    saved: Checkpoints,
    initial: Any,
    tracking: Tracking,
) -> tuple[_Training, TrainState, TrainingLog]:
    """Compile the step while the newest state is restored, or initialized."""
    c, shapes = training.config, training.init.eval_shape()
    used = training.batch_sharding.mesh.size
    devices = f"{used} {platform_of(training.batch_sharding)}"
    if used < jax.device_count():
        devices += f" of {jax.device_count()}, which divide the batch evenly"
    progress.say(
        f"{c.model.name} U-Net, "
        f"{count_parameters((shapes.params, shapes.batch_stats)):,} parameters; "
        f"{len(training.names)} slices at {c.data.image_size}x{c.data.image_size}; "
        f"{c.train.total_steps} steps of {c.train.batch_size} on {devices}"
    )
    saved.check_room(shapes.arrays)
    with ThreadPoolExecutor(1) as compiler:  # XLA does not hold the interpreter lock
        compilation = compiler.submit(_compile, training, shapes)
        state = training.init()
        step, arrays, notes = saved.restore(state.arrays)
        training = dataclasses.replace(training, train_steps=compilation.result())
    if step:
        progress.say(f"resuming after step {step}")
        state = state.at(step, arrays)
    elif initial is not None:
        state = state.replace(**jax.device_put(initial, state.step.sharding))
    log = TrainingLog(
        folder,
        training.schedule,
        total=c.train.total_steps,
        start=step,
        notes=notes,
        batch_names=training.batch_names,
        tracking=tracking,
    )
    return training, state, log


def _loop(
    training: _Training, state: TrainState, log: TrainingLog, saved: Checkpoints
) -> None:
    """Apply the updates that are left.

    After an update, in this order: batch statistics are re-estimated at the end of a
    cycle; the log and validation, where due; the checkpoint, where due. A checkpoint thus
    holds what the next update sees, and a row of metrics.jsonl precedes the checkpoint of
    its step.
    """
    c, total = training.config, training.config.train.total_steps
    snapshots = snapshot_steps(c)
    fixed_batches = whole_batches(len(training.names), c.train.batch_size, seed=c.seed)
    step = int(state.step)
    with (
        signals.defer_signals(),
        progress.bar("training", total, done=step, unit="step") as bar,
    ):
        while step < total:
            # Up to the next step after which something is due, in one dispatch.
            count = min(c.train.steps_per_dispatch, _next_due(step, c) - step)
            state, metrics = _dispatch(training, state, step, count)
            step += count
            log.add(metrics, count)
            bar.update(count)

            is_snapshot = step in snapshots
            save_due = is_snapshot or step % c.train.save_every == 0
            row_due = save_due or step % c.train.log_every == 0
            has_stats = state.batch_stats is not None
            if is_snapshot and c.train.population_stats and has_stats:
                images = training.arrays["image"]
                stats = training.precise_batch_stats(
                    state.variables, images, fixed_batches
                )
                state = state.replace(batch_stats=stats)
            if row_due:
                log.write(step, bar)
            if is_snapshot or step % c.train.validate_every == 0:
                log.write_scores(step, is_snapshot, training.validate(state))
            if is_snapshot:
                log.draw(step, state.variables)
            must_stop = distributed.any_process(signals.requested, ask=row_due)
            if save_due or must_stop:
                saved.save(step, state.arrays, log.notes())
            if must_stop:
                progress.say(f"saved after step {step} of {total}")
                signals.stop()


def _compile(training: _Training, state: TrainState) -> Callable:
    """Compile `train_steps` for the shapes that it will be called with."""
    images, masks = training.arrays["image"], training.arrays["mask"]
    mesh = training.batch_sharding.mesh
    arguments = train_steps_arguments(training.config, mesh, state, images, masks)
    return training.train_steps.lower(*arguments).compile()


def _dispatch(training: _Training, state: TrainState, step: int, count: int):
    """Apply `count` updates after `step`."""
    batches = [training.batch(s) for s in range(step, step + count)]
    padding = training.config.train.steps_per_dispatch - count
    indices = np.stack(batches + padding * batches[-1:]).astype(np.int32)
    return training.train_steps(
        state,
        training.arrays["image"],
        training.arrays["mask"],
        jax.device_put(indices, training.batch_sharding),
        np.int32(count),
    )


def _next_due(step: int, c: ConfigDict) -> int:
    """Return the first step after `step` that is logged, validated, saved or a snapshot."""
    intervals = c.train.log_every, c.train.validate_every, c.train.save_every
    regular = [(step // interval + 1) * interval for interval in intervals]
    return min(*regular, *(end for end in snapshot_steps(c) if end > step))
