"""Sending the rows of a training to its trackers, without waiting for them."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from lungseg_jax.runtime import distributed, progress
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
        names: Sequence[str] = (),
        draw: Callable[[Any], np.ndarray] | None = None,
    ):
        self._names, self._draw = tuple(dict.fromkeys(names)), draw
        self._trackers: dict[str, Tracker] = {}
        self._failed: set[str] = set()
        self._lock = threading.Lock()
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
        if not self._names or not distributed.is_primary():
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
            if name not in self._failed:
                call(name, *args)

        future = self._thread.submit(unless_failed)
        future.add_done_callback(functools.partial(self._check, name))

    def _check(self, name: str, future: Future) -> None:
        error = future.exception()  # of any type: a library decides what it raises
        if error is None:
            return
        with self._lock:
            is_first = name not in self._failed
            self._failed.add(name)
        if is_first:
            progress.say(
                f"{name} no longer follows the training: "
                f"{type(error).__name__}: {error}; metrics.jsonl has every row"
            )
