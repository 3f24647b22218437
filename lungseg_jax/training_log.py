"""The rows of metrics.jsonl, and the same for the reader of a terminal."""

import datetime
import time

import jax
import numpy as np

from lungseg_jax import processes, progress
from lungseg_jax.errors import UserError
from lungseg_jax.run_folder import RunFolder


class TrainingLog:
    """Gathers the metrics of steps on the device, and fetches them when a row is due.

    Rows of updates after `start` are dropped: those were lost and will be done again.
    """

    def __init__(self, folder: RunFolder, schedule, *, total: int, start: int):
        self._folder, self._schedule, self._total = folder, schedule, total
        if processes.is_first():
            folder.forget_metrics_after(start)
        self._pending = []
        self._since = start, time.perf_counter()
        self._compiled = None  # step and time when the first row was written

    def add(self, metrics, count: int) -> None:
        """Keeps the first `count` values of each metric, which stay on the device."""
        self._pending.append((metrics, count))

    def write(self, done: int, bar) -> None:
        """A row with the means since the last one; the host waits for the device here."""
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        self._pending = []

        def mean(name):
            return float(np.mean(np.concatenate([m[name][:n] for m, n in fetched])))

        row = {
            "step": done,
            "kind": "train",
            "loss": mean("loss"),
            "grad_norm": mean("grad_norm"),
            "learning_rate": float(self._schedule(done - 1)),
            "steps_per_second": self._rate(done),
        }
        if not np.isfinite(row["loss"]):
            raise UserError(
                f"the loss became {row['loss']} before step {done}.",
                remedy="lower config.schedule.peak, or set config.optimizer.clip_norm=1.",
            )
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
        if processes.is_first():
            self._folder.append_metrics(row)

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
