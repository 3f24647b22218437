"""Builds the training of a run, resumes it where it stopped, and carries it out."""

from concurrent import futures

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.checkpoints import Checkpoints
from lungseg_jax.data.dataset import Dataset, to_network_arrays
from lungseg_jax.data.preprocessing import PREPROCESSING
from lungseg_jax.data.sampling import batch_indices, whole_batches
from lungseg_jax.metrics import overlap
from lungseg_jax.models import make_model
from lungseg_jax.runtime import distributed, progress, sharding, signals
from lungseg_jax.training.config import preprocessing, snapshot_steps
from lungseg_jax.training.log import TrainingLog
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.optimizers import make_optimizer
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.run_record import Split
from lungseg_jax.training.schedules import make_schedule
from lungseg_jax.training.state import count_parameters, make_init_fn
from lungseg_jax.training.steps import (
    make_eval_step,
    make_precise_batch_stats,
    make_train_steps,
)


def is_finished(config: ConfigDict, folder: RunFolder) -> bool:
    """Whether the last update was done and saved, and is there still."""
    last = config.train.total_steps
    if last not in checkpoints.saved_steps(folder.checkpoints):
        return False
    try:
        checkpoints.verify_checkpoint(folder.checkpoints, last)
    except checkpoints.CorruptCheckpointError:
        return False
    return True


def train(config: ConfigDict, folder: RunFolder, source: Dataset, split: Split) -> None:
    """Updates until `config.train.total_steps`, from the newest checkpoint on.

    After an update, in this order: at a cycle's end the batch statistics are
    re-estimated; validation and log, where due; the state is saved, where due. A
    checkpoint so holds what the next update sees, and a row in metrics.jsonl is older
    than the checkpoint of its step.

    Raises:
      UserError: the training diverged, or the disk is full.
      Stopped: a signal asked for the end; the last update is saved.
    """
    c, total = config, config.train.total_steps
    schedule = make_schedule(total_steps=total, **c.schedule)
    tx = make_optimizer(schedule, **c.optimizer)
    model = make_model(**c.model)
    mesh = sharding.make_mesh()
    copied, split_up = sharding.replicated(mesh), sharding.by_example(mesh, axis=1)
    snapshots = snapshot_steps(c)
    train_steps = make_train_steps(
        loss=LOSSES[c.train.loss],
        outlier_knee=c.train.outlier_knee,
        augmentation=c.augment.to_dict(),
        seed=c.seed,
        sharding=copied,
    )
    population_stats = make_precise_batch_stats(model, sharding=copied)
    validate = _make_validate(c, model, mesh, source, split["validation"])

    make_state = make_init_fn(
        model,
        tx,
        channels=PREPROCESSING[c.data.preprocessing],
        seed=c.seed,
        sharding=copied,
    )
    arrays = jax.device_put(_network_arrays(c, source, split["train"]), copied)
    shapes = make_state.eval_shape()
    progress.say(
        f"{c.model.name} U-Net, "
        f"{count_parameters((shapes.params, shapes.batch_stats)):,} parameters; "
        f"{len(split['train'])} slices at {c.data.image_size}x{c.data.image_size}; "
        f"{total} steps of {c.train.batch_size} on {mesh.size} {jax.default_backend()}"
    )
    with Checkpoints(folder.checkpoints, snapshots=snapshots) as saved:
        saved.check_room(shapes)
        with futures.ThreadPoolExecutor(1) as beside:
            # XLA compiles beside the interpreter, which makes the state meanwhile.
            compiling = beside.submit(
                _compile, train_steps, shapes, arrays, c, split_up
            )
            state, notes = saved.restore(make_state())
            train_steps = compiling.result()
        start = int(state.step)
        if start:
            progress.say(f"resuming after step {start}")
        fixed_batches = whole_batches(
            len(split["train"]), c.train.batch_size, seed=c.seed
        )
        log = TrainingLog(
            folder,
            schedule,
            total=total,
            start=start,
            notes=notes,
            batch_names=lambda step: [
                split["train"][i] for i in _batch(step, c, split)
            ],
        )
        with (
            signals.defer_signals(),
            progress.bar("training", total, done=start, unit="step") as bar,
        ):
            step = start
            while step < total:
                # Up to the next step after which something is due, in one dispatch.
                done = min(step + c.train.steps_per_dispatch, _next_due(step, c))
                indices = _batches(step, done, c, split)
                state, metrics_of_steps = train_steps(
                    state,
                    arrays["image"],
                    arrays["mask"],
                    jax.device_put(indices, split_up),
                    np.int32(done - step),
                )
                log.add(metrics_of_steps, done - step)
                bar.update(done - step)

                step = done
                is_snapshot = step in snapshots
                save_due = is_snapshot or step % c.train.save_every == 0
                row_due = save_due or step % c.train.log_every == 0
                if is_snapshot and c.train.population_stats:
                    stats = population_stats(
                        state.variables, arrays["image"], fixed_batches
                    )
                    state = state.replace(batch_stats=stats)
                if row_due:
                    log.write(step, bar)
                if is_snapshot or step % c.train.validate_every == 0:
                    log.write_scores(step, is_snapshot, validate(state))
                must_stop = distributed.any_process(signals.requested, ask=row_due)
                if save_due or must_stop:
                    saved.save(state, log.notes())
                if must_stop:
                    progress.say(f"saved after step {step} of {total}")
                    signals.stop()


def network_images(config: ConfigDict, source: Dataset, names) -> np.ndarray:
    """The named slices as the network sees them, `[n s s c]`."""
    return _network_arrays(config, source, names)["image"]


def _compile(train_steps, state, arrays, c: ConfigDict, split_up):
    """`train_steps` for the shapes that it will be called with."""
    copied = arrays["image"].sharding
    state = jax.tree.map(lambda leaf: leaf.update(sharding=copied), state)
    shape = c.train.steps_per_dispatch, c.train.batch_size
    indices = jax.ShapeDtypeStruct(shape, np.int32, sharding=split_up)
    images, masks = arrays["image"], arrays["mask"]
    return train_steps.lower(state, images, masks, indices, np.int32(1)).compile()


def _next_due(step: int, c: ConfigDict) -> int:
    """The first step after `step` that is logged, validated, saved or a snapshot."""
    intervals = c.train.log_every, c.train.validate_every, c.train.save_every
    regular = [(step // interval + 1) * interval for interval in intervals]
    return min(*regular, *(end for end in snapshot_steps(c) if end > step))


def _batch(step: int, c: ConfigDict, split: Split) -> np.ndarray:
    """Indices `[batch_size]` into the training split, of the update after `step`."""
    n = len(split["train"])
    return batch_indices(step, n=n, batch_size=c.train.batch_size, seed=c.seed)


def _batches(step: int, done: int, c: ConfigDict, split: Split) -> np.ndarray:
    """Indices `[steps_per_dispatch batch_size]`; rows from `done - step` on are unused."""
    batches = [_batch(s, c, split) for s in range(step, done)]
    unused = c.train.steps_per_dispatch - len(batches)
    return np.stack(batches + unused * batches[-1:]).astype(np.int32)


def _make_validate(c: ConfigDict, model, mesh, source: Dataset, names):
    """`validate(state) -> {"loss", "iou_pooled"}` at the network's size."""
    if not names:
        return lambda state: {}
    arrays = _network_arrays(c, source, names)
    eval_step = make_eval_step(
        model,
        loss=LOSSES[c.train.loss],
        threshold=c.evaluate.threshold,
        sharding=sharding.replicated(mesh),
    )
    size = -(-c.evaluate.batch_size // mesh.size) * mesh.size
    batches = [
        np.resize(np.arange(start, min(start + size, len(names))), size)
        for start in range(0, len(names), size)
    ]

    def validate(state) -> dict:
        losses, rows = [], []
        for batch in batches:
            inputs = arrays["image"][batch], arrays["mask"][batch]
            inputs = jax.device_put(inputs, sharding.by_example(mesh))
            out = jax.device_get(eval_step(state.variables, *inputs))
            fresh = len(np.unique(batch))  # what fills up the last batch is left out
            losses += out[0][:fresh].tolist()
            rows += out[1][:fresh].tolist()
        scores = overlap.summarize(rows, resamples=0)
        return {"loss": float(np.mean(losses)), "iou_pooled": scores["iou_pooled"]}

    return validate


def _network_arrays(c: ConfigDict, source: Dataset, names) -> dict[str, np.ndarray]:
    return to_network_arrays(
        source.slices(names), soft_masks=c.data.soft_masks, **preprocessing(c)
    )
