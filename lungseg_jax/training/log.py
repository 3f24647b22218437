"""Writes the rows of metrics.jsonl and prints them."""

import datetime
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax

from lungseg_jax.checkpointing.manifest import DIVERGED
from lungseg_jax.runtime import job, progress
from lungseg_jax.runtime.compilation import fixed_settings
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.steps import UPDATE_METRICS
from lungseg_jax.training.tracking import Tracking

SECONDS_BETWEEN_WRITES = 30  # to object storage, which has to be given the whole file


class TrainingLog:
    """Accumulates metrics on the device and fetches them when a row is due.

    Rows of updates after `start` are dropped: those updates were lost and are repeated.

    Args:
      folder: the run folder.
      schedule: learning rate by step.
      total: number of steps of the run.
      start: steps done before.
      notes: the notes saved with step `start`.
      batch_names: returns the slices of the update after a step.
      tracking: also gets each row.
    """

    def __init__(
        self,
        folder: RunFolder,
        schedule: optax.Schedule,
        *,
        total: int,
        start: int,
        notes: Mapping[str, Sequence[float]],
        batch_names: Callable[[int], Sequence[str]],
        tracking: Tracking,
    ):
        self._folder, self._total = folder, total
        # Not a program for each of its operations.
        rate = jax.jit(fixed_settings()(schedule))
        self._learning_rate = lambda step: float(rate(np.int32(step)))
        self._batch_names, self._tracking = batch_names, tracking
        if job.is_primary():
            folder.forget_metrics_after(start)
        self._values = {name: list(notes.get(name, ())) for name in UPDATE_METRICS}
        self._last_row = start - len(self._values["loss"])
        self._pending = []
        self._unwritten, self._has_failed = [], False
        self._written = time.perf_counter()
        self._since = start, time.perf_counter()
        self._first_row = None  # step and time of the first row: compilation is over

    def add(self, metrics, count: int) -> None:
        """Keep the first `count` values of each metric, which stay on the device."""
        self._pending.append((metrics, count))

    def notes(self) -> dict[str, list[float]]:
        """Return the metrics since the last row; waits for the device.

        Raises:
          UserError: one of them is not finite.
        """
        for metrics, count in jax.device_get(self._pending):
            for name in UPDATE_METRICS:
                self._values[name] += metrics[name][:count].tolist()
        self._pending = []
        finite = np.isfinite([*self._values.values()]).all(axis=0)
        if not finite.all():
            raise self._diverged(int(np.argmin(finite)))
        return {name: list(values) for name, values in self._values.items()}

    def write(self, done: int, bar) -> None:
        """Write a row with the means since the last one.

        Raises:
          UserError: a loss or a gradient is not finite.
        """
        values = self.notes()
        if not values["loss"]:
            return
        row = {
            "step": done,
            "kind": "train",
            **{name: float(np.mean(np.float32(v))) for name, v in values.items()},
            "learning_rate": self._learning_rate(done - 1),
            "steps_per_second": self._rate(done),
        }
        self._values = {name: [] for name in UPDATE_METRICS}
        self._last_row = done
        self._append(row)
        rate = row["steps_per_second"]
        if bar.disable:
            progress.say(
                f"step {done}/{self._total}  loss {row['loss']:.4f}  "
                f"learning rate {row['learning_rate']:.2e}  {rate:.2f} steps/s"
                + self._time_left(done)
            )
        else:
            bar.set_postfix_str(
                f"loss {row['loss']:.4f}, learning rate {row['learning_rate']:.2e}"
            )

    def write_scores(
        self, done: int, is_snapshot: bool, scores: Mapping[str, float | None]
    ) -> None:
        """Write a row with the scores of `validation.make_validate`, which may be none."""
        if not scores and not is_snapshot:
            return  # without a validation split, there is nothing to report
        kind = "snapshot" if is_snapshot else "validation"
        row = {"step": done, "kind": kind, **scores}
        if is_snapshot:
            row["learning_rate"] = self._learning_rate(done - 1)
        self._append(row)
        text = "".join(
            f"  {name} {value:.4f}"
            for name, value in scores.items()
            if value is not None
        )
        if text:
            progress.say(f"step {done}  {kind}:{text}")

    def _append(self, row: dict) -> None:
        """Append a row, at once or, on object storage, with those that follow."""
        if not job.is_primary():
            return
        self._tracking.add(row)
        self._unwritten.append(row)
        is_due = time.perf_counter() - self._written > SECONDS_BETWEEN_WRITES
        if is_due or not self._folder.is_remote:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not written; should that fail, try again next time."""
        if not self._unwritten:
            return
        self._written = time.perf_counter()
        try:
            self._folder.append_metrics(self._unwritten)
        except OSError as e:
            if not self._has_failed:
                progress.say(f"{self._folder.metrics} cannot be written: {e.strerror}.")
            self._has_failed = True
        else:
            self._unwritten, self._has_failed = [], False

    def _diverged(self, index: int) -> UserError:
        step = self._last_row + index + 1
        loss, norm = (self._values[name][index] for name in UPDATE_METRICS)
        return UserError(
            f"the training diverged: at step {step} the loss is {loss:.4g} and the norm "
            f"of the gradient is {norm:.4g}.",
            rule=f"the slices of that step: {', '.join(self._batch_names(step - 1))}.",
            remedy=DIVERGED,
        )

    def _time_left(self, done: int) -> str:
        """Estimate the time left from the mean rate since compilation."""
        now = time.perf_counter()
        if self._first_row is None:
            self._first_row = done, now
            return ""
        step, then = self._first_row
        seconds = (self._total - done) * (now - then) / (done - step)
        return f"  {datetime.timedelta(seconds=round(seconds))} left"

    def _rate(self, done: int) -> float:
        (step, then), now = self._since, time.perf_counter()
        self._since = done, now
        return round((done - step) / (now - then), 3)
