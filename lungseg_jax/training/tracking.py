"""Sending the rows of a training to its trackers, without waiting for them."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from lungseg_jax.runtime import job, progress
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.trackers import TRACKERS, Tracker


class Tracking:
    """Sends rows and pictures to trackers, in a thread of its own.

    A slow tracker does not delay the training before its end, and one that fails is left
    out from then on, with one message.

    Args:
      names: keys of `TRACKERS`, checked by `require_trackers`.
      draw: draws what a network does, `variables -> [h w 3]` uint8 RGB, or None.
    """

    def __init__(
        self,
        names: Sequence[str],
        draw: Callable[[Any], np.ndarray] | None,
    ):
        self._names, self._draw = tuple(dict.fromkeys(names)), draw
        self._trackers: dict[str, Tracker] = {}
        self._failed: set[str] = set()
        self._thread: ThreadPoolExecutor | None = None

    @contextlib.contextmanager
    def following(
        self, folder: RunFolder, config: Mapping[str, Any], *, start: int
    ) -> Iterator[None]:
        """Open the trackers for the block; only the primary process has any.

        Args:
          folder: the run folder; a tracker that is new gets the rows that it has.
          config: the options by dotted name.
          start: steps done before.
        """
        if not self._names or not job.is_primary():
            yield
            return
        rows = folder.read_metrics()
        with ThreadPoolExecutor(1, "tracking") as self._thread:
            for name in self._names:
                self._submit(name, self._open, folder, config, start, rows)
            try:
                yield
            finally:
                for name in self._names:
                    self._submit(name, lambda name: self._trackers[name].close())
                self._thread = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Send a row of metrics.jsonl."""
        for name in self._names if self._thread else ():
            self._submit(name, lambda name: self._trackers[name].add(row))

    def add_picture(self, step: int, variables: Any) -> None:
        """Send a picture of what a network does, drawn from its variables."""
        names = [name for name in self._names if TRACKERS[name].shows_pictures]
        if not self._thread or not self._draw or not names:
            return
        # The next update reuses their memory.
        draw = functools.cache(functools.partial(self._draw, jax.device_get(variables)))
        for name in names:
            self._submit(
                name, lambda name: self._trackers[name].add_picture(step, draw())
            )

    def _open(self, name: str, folder: RunFolder, config, start: int, rows) -> None:
        self._trackers[name] = tracker = TRACKERS[name](folder, config, start)
        for row in rows if tracker.needs_history else ():
            tracker.add(row)

    def _submit(self, name: str, call: Callable, *args) -> None:
        """Call `call(name, *args)` in the thread, unless the tracker has failed."""

        def unless_failed() -> None:
            if name in self._failed:
                return
            try:
                call(name, *args)
            except BaseException as e:  # a library decides what it raises
                self._failed.add(name)
                progress.say(
                    f"{name} no longer follows the training: "
                    f"{type(e).__name__}: {e}; metrics.jsonl has every row"
                )
                raise  # into a future that is not read: the training goes on

        self._thread.submit(unless_failed)
