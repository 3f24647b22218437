"""The rows of metrics.jsonl, and the same for the reader of a terminal."""

import datetime
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from lungseg_jax.checkpointing.manifest import REMEDY
from lungseg_jax.runtime import distributed, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import RunFolder

METRICS = ("loss", "grad_norm")


class TrainingLog:
    """Gathers the metrics of steps on the device, and fetches them when a row is due.

    Rows of updates after `start` are dropped: those were lost and will be done again.

    Args:
      folder: of the run.
      schedule: learning rate by step.
      total: steps of the run.
      start: steps done before.
      notes: of the log that was saved with step `start`.
      batch_names: the slices that the update after a step sees.
    """

    def __init__(
        self,
        folder: RunFolder,
        schedule,
        *,
        total: int,
        start: int,
        notes: Mapping[str, Sequence[float]],
        batch_names: Callable[[int], Sequence[str]],
    ):
        self._folder, self._schedule, self._total = folder, schedule, total
        self._batch_names = batch_names
        if distributed.is_primary():
            folder.forget_metrics_after(start)
        self._values = {name: list(notes.get(name, ())) for name in METRICS}
        self._last_row = start - len(self._values["loss"])
        self._pending = []
        self._unwritten = []
        self._since = start, time.perf_counter()
        self._compiled = None  # step and time when the first row was written

    def add(self, metrics, count: int) -> None:
        """Keeps the first `count` values of each metric, which stay on the device."""
        self._pending.append((metrics, count))

    def notes(self) -> dict[str, list[float]]:
        """The metrics since the last row; the host waits for the device here.

        Raises:
          UserError: one is not finite.
        """
        for metrics, count in jax.device_get(self._pending):
            for name in METRICS:
                self._values[name] += metrics[name][:count].tolist()
        self._pending = []
        finite = np.isfinite([self._values[name] for name in METRICS]).all(axis=0)
        if not finite.all():
            raise self._diverged(int(np.argmin(finite)))
        return {name: list(values) for name, values in self._values.items()}

    def write(self, done: int, bar) -> None:
        """A row with the means since the last one.

        Raises:
          UserError: a loss or a gradient is not finite.
        """
        values = self.notes()
        if not values["loss"]:
            return
        row = {
            "step": done,
            "kind": "train",
            **{name: float(np.mean(np.float32(values[name]))) for name in METRICS},
            "learning_rate": float(self._schedule(done - 1)),
            "steps_per_second": self._rate(done),
        }
        self._values = {name: [] for name in METRICS}
        self._last_row = done
        self._append(row)
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
        self._append(row)
        text = "".join(f"  {name} {value:.4f}" for name, value in scores.items())
        if text:
            progress.say(f"step {done}  {kind}:{text}")

    def _append(self, row: dict) -> None:
        """A row that the disk does not take is kept for the next time."""
        if not distributed.is_primary():
            return
        self._unwritten.append(row)
        try:
            self._folder.append_metrics(self._unwritten)
        except OSError as e:
            if len(self._unwritten) == 1:
                progress.say(f"{self._folder.metrics} cannot be written: {e.strerror}.")
        else:
            self._unwritten = []

    def _diverged(self, index: int) -> UserError:
        step = self._last_row + index + 1
        loss, norm = (self._values[name][index] for name in METRICS)
        return UserError(
            f"the training diverged: at step {step} the loss is {loss:.4g} and the norm "
            f"of the gradient {norm:.4g}.",
            rule=f"the slices of that step: {', '.join(self._batch_names(step - 1))}.",
            remedy=REMEDY,
        )

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
