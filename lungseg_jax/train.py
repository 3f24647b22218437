"""Builds the training of a run, resumes it where it stopped, and carries it out."""

import datetime
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lungseg_jax import checkpoints, metrics, progress, sharding
from lungseg_jax.config import differences, preprocessing, snapshot_steps
from lungseg_jax.data.batches import batch_indices, epoch_order
from lungseg_jax.data.preprocess import PREPROCESSING
from lungseg_jax.data.source import Source, network_arrays
from lungseg_jax.errors import UserError
from lungseg_jax.losses import LOSSES
from lungseg_jax.models import make_model
from lungseg_jax.run_folder import RunFolder, read_json, write_json
from lungseg_jax.schedules import SCHEDULES, held
from lungseg_jax.steps import make_eval_step, make_population_stats, make_train_step
from lungseg_jax.train_state import count, create_state

Split = Mapping[str, Sequence[str]]  # names by "train", "validation", "test"


def open_run(
    config: ConfigDict, folder: RunFolder, source: Source, split: Split
) -> None:
    """Writes config.json and run.json, or finds the same ones there.

    Raises:
      UserError: the folder holds another run, or something else; nothing is changed.
    """
    resolved = config.to_dict()
    new_folder = "give this run a folder of its own with --workdir=DIR."
    if folder.config.exists() and folder.run.exists():
        changed = differences(read_json(folder.config), resolved)
        if changed:
            rows = "\n".join(f"  {row}" for row in changed)
            raise UserError(
                f"{folder.path} holds a run with other settings:\n{rows}",
                rule="a run is resumed with the settings it was started with.",
                remedy=new_folder,
            )
        if read_json(folder.run)["data"]["fingerprint"] != source.fingerprint:
            raise UserError(
                f"{folder.path} holds a run on other data: files were changed, added or "
                "removed since.",
                rule="a run is resumed on the files it was started with.",
                remedy=new_folder,
            )
        return
    if folder.path.exists() and (
        not folder.path.is_dir() or any(folder.path.iterdir()) and not _is_ours(folder)
    ):
        raise UserError(
            f"{folder.path} is not empty and holds no run.", remedy=new_folder
        )
    write_json(folder.run, _describe(source, split))
    write_json(folder.config, resolved)


def check_fit(config: ConfigDict, source: Source, split: Split) -> None:
    """Refuses settings that do not fit the data or the machine.

    Raises:
      UserError: a batch that cannot be filled or shared out over the devices, or a
        window of Hounsfield units for 8-bit pictures.
    """
    window = config.data.window_hu
    if source.dtype == "uint8" and window[0] < 0:
        raise UserError(
            f"the images are 8-bit, and data.window_hu={tuple(window)} is for CT values.",
            rule="the window lies in the values of the images.",
            remedy="--config.data.window_hu=0,255.",
        )
    batch_size, n = config.train.batch_size, len(split["train"])
    if batch_size > n:
        raise UserError(
            f"train.batch_size={batch_size} is larger than the training split.",
            rule=f"at most its {n} slices.",
            remedy=f"--config.train.batch_size={n} or less.",
        )
    devices = jax.device_count()
    if batch_size % devices:
        low = batch_size // devices * devices
        near = ", ".join(str(s) for s in (low, low + devices) if 0 < s <= n)
        raise UserError(
            f"train.batch_size={batch_size} cannot be shared out over {devices} devices.",
            rule=f"a multiple of {devices}.",
            remedy=f"try {near}." if near else "use fewer devices.",
        )


def is_finished(config: ConfigDict, folder: RunFolder) -> bool:
    """Whether the last update was done and saved."""
    return config.train.total_steps in checkpoints.saved_steps(folder.checkpoints)


def train(config: ConfigDict, folder: RunFolder, source: Source, split: Split) -> None:
    """Updates until `config.train.total_steps`, from the newest checkpoint on.

    After an update, in this order: at a cycle's end the batch statistics are
    re-estimated; validation and log, where due; the state is saved, where due. A
    checkpoint so holds what the next update sees, and a row in metrics.jsonl is older
    than the checkpoint of its step.
    """
    c, total = config, config.train.total_steps
    schedule, tx = make_optimizer(c)
    model = make_model(**c.model)
    mesh = sharding.make_mesh()
    copied, split_up = sharding.replicated(mesh), sharding.by_example(mesh)
    loss = LOSSES[c.train.loss]
    snapshots = snapshot_steps(c)
    train_step = make_train_step(
        loss=loss, augmentation=c.augment.to_dict(), seed=c.seed, sharding=copied
    )
    population_stats = make_population_stats(model, sharding=copied)
    validate = _make_validate(c, model, loss, source, split["validation"])

    state = create_state(
        model,
        tx,
        channels=PREPROCESSING[c.data.preprocessing],
        seed=c.seed,
        sharding=copied,
    )
    progress.say(
        f"{c.model.name} U-Net, {count((state.params, state.batch_stats)):,} parameters; "
        f"{len(split['train'])} slices at {c.data.image_size}x{c.data.image_size}; "
        f"{total} steps of {c.train.batch_size} on {mesh.size} {jax.default_backend()}"
    )
    with checkpoints.open_checkpoints(
        folder.checkpoints, snapshots=snapshots
    ) as manager:
        state = checkpoints.restore(manager, state)
        start = int(state.step)
        folder.forget_metrics_after(start)
        if start:
            progress.say(f"resuming after step {start}")
        arrays = jax.device_put(_network_arrays(c, source, split["train"]), copied)
        fixed_batches = _batches_of(len(split["train"]), c.train.batch_size, c.seed)
        log = _Log(folder, schedule, total=total, start=start)
        with progress.bar("training", total, done=start, unit="step") as bar:
            for step in range(start, total):
                indices = batch_indices(
                    step,
                    n=len(split["train"]),
                    batch_size=c.train.batch_size,
                    seed=c.seed,
                )
                state, step_metrics = train_step(
                    state,
                    arrays["image"],
                    arrays["mask"],
                    jax.device_put(indices, split_up),
                )
                log.add(step_metrics)
                bar.update()

                done = step + 1
                is_snapshot = done in snapshots
                save_due = is_snapshot or done % c.train.save_every == 0
                if is_snapshot and c.train.population_stats:
                    stats = population_stats(state, arrays["image"], fixed_batches)
                    state = state.replace(batch_stats=stats)
                if save_due or done % c.train.log_every == 0:
                    log.write(done, bar)
                if is_snapshot or done % c.train.validate_every == 0:
                    log.write_scores(done, is_snapshot, validate(state))
                if save_due:
                    checkpoints.save(manager, state)


def make_optimizer(
    c: ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate by step, and the optimizer that follows it."""
    schedule = SCHEDULES[c.schedule.name](
        total_steps=c.train.total_steps,
        cycles=c.schedule.cycles,
        peak=c.schedule.peak,
        warmup_steps=c.schedule.warmup_steps,
        growth=c.schedule.growth,
        floor=c.schedule.floor,
    )
    schedule = held(schedule, c.schedule.hold_steps)
    if c.optimizer.name == "adamw":
        tx = optax.adamw(
            schedule, eps=c.optimizer.epsilon, weight_decay=c.optimizer.weight_decay
        )
    else:
        tx = optax.adam(schedule, eps=c.optimizer.epsilon)
    if c.optimizer.clip_norm:
        tx = optax.chain(optax.clip_by_global_norm(c.optimizer.clip_norm), tx)
    return schedule, tx


class _Log:
    """Gathers the metrics of steps on the device, and fetches them when a row is due."""

    def __init__(self, folder: RunFolder, schedule, *, total: int, start: int):
        self._folder, self._schedule, self._total = folder, schedule, total
        self._pending = []
        self._since = start, time.perf_counter()
        self._compiled = None  # step and time when the first row was written

    def add(self, step_metrics) -> None:
        self._pending.append(step_metrics)

    def write(self, done: int, bar) -> None:
        """A row with the means since the last one; the host waits for the device here."""
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        self._pending = []
        row = {
            "step": done,
            "kind": "train",
            "loss": float(np.mean([m["loss"] for m in fetched])),
            "grad_norm": float(np.mean([m["grad_norm"] for m in fetched])),
            "learning_rate": float(self._schedule(done - 1)),
            "steps_per_second": self._rate(done),
        }
        if not np.isfinite(row["loss"]):
            raise UserError(
                f"the loss became {row['loss']} before step {done}.",
                remedy="lower config.schedule.peak, or set config.optimizer.clip_norm=1.",
            )
        self._folder.append_metrics(row)
        rate = row["steps_per_second"]
        if bar.disable:
            progress.say(
                f"step {done}/{self._total}  loss {row['loss']:.4f}  "
                f"learning rate {row['learning_rate']:.2e}  {rate:.2f} steps/s"
                + self._left(done)
            )
        else:
            bar.set_postfix_str(
                f"loss {row['loss']:.4f}, learning rate {row['learning_rate']:.2e}"
            )

    def write_scores(self, done: int, is_snapshot: bool, scores: dict) -> None:
        kind = "snapshot" if is_snapshot else "validation"
        row = {"step": done, "kind": kind, **scores}
        if is_snapshot:
            row["learning_rate"] = float(self._schedule(done - 1))
        self._folder.append_metrics(row)
        text = "".join(f"  {name} {value:.4f}" for name, value in scores.items())
        if text:
            progress.say(f"step {done}  {kind}:{text}")

    def _left(self, done: int) -> str:
        """Time left at the mean rate since the program was compiled."""
        now = time.perf_counter()
        if self._compiled is None:
            self._compiled = done, now
            return ""
        step, then = self._compiled
        seconds = (self._total - done) * (now - then) / (done - step)
        return f"  {datetime.timedelta(seconds=round(seconds))} left"

    def _rate(self, done: int) -> float:
        (step, then), now = self._since, time.perf_counter()
        self._since = done, now
        return round((done - step) / (now - then), 3)


def _make_validate(c: ConfigDict, model, loss, source: Source, names):
    """`validate(state) -> {"loss", "iou_pooled"}` at the network's size."""
    if not names:
        return lambda state: {}
    arrays = _network_arrays(c, source, names)
    eval_step = make_eval_step(model, loss=loss, threshold=c.evaluate.threshold)
    size = c.evaluate.batch_size
    batches = [
        np.resize(np.arange(start, min(start + size, len(names))), size)
        for start in range(0, len(names), size)
    ]

    def validate(state) -> dict:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        losses, rows = [], []
        for batch in batches:
            out = eval_step(variables, arrays["image"][batch], arrays["mask"][batch])
            fresh = len(np.unique(batch))  # what fills up the last batch is left out
            losses += out[0][:fresh].tolist()
            rows += out[1][:fresh].tolist()
        scores = metrics.scores(rows, resamples=0)
        return {"loss": float(np.mean(losses)), "iou_pooled": scores["iou_pooled"]}

    return validate


def _network_arrays(c: ConfigDict, source: Source, names) -> dict[str, np.ndarray]:
    return network_arrays(
        source.slices(names), soft_masks=c.data.soft_masks, **preprocessing(c)
    )


def _batches_of(n: int, batch_size: int, seed: int) -> np.ndarray:
    """All whole batches of one order, `[n // batch_size, batch_size]`."""
    whole = n // batch_size * batch_size
    order = epoch_order(n, seed=seed, epoch=0)
    return order[:whole].reshape(-1, batch_size)


def _describe(source: Source, split: Split) -> dict:
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "lungseg-jax")
    return {
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in packages},
        "devices": [str(device) for device in jax.devices()],
        "data": {
            "variant": source.variant,
            "fingerprint": source.fingerprint,
            "dtype": source.dtype,
        },
        "split": {name: list(names) for name, names in split.items()},
        "sha256": dict(source.digests),
    }


def _is_ours(folder: RunFolder) -> bool:
    """A start that was interrupted between its two files."""
    names = {p.name for p in Path(folder.path).iterdir() if not p.name.startswith(".")}
    return names <= {folder.run.name}
