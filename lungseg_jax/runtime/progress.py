"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
from collections.abc import Iterator

from tqdm import tqdm

from lungseg_jax.runtime.errors import pluralize

_silent = False
_lost: set[int] = set()  # ids of streams that cannot be written, as on a full disk


def silence() -> None:
    """Print nothing from now on: only one process of a job does."""
    global _silent
    _silent = True


class _RobustStream:
    """A stream whose failure (a closed pipe, a full disk) does not end the work."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as e:
            # As of `| head`: the reader has left.
            if not isinstance(e, BrokenPipeError):
                _lost.add(id(self._stream))
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def flush(self) -> None:
        pass

    def __getattr__(self, name):
        return getattr(self._stream, name)


def say(line: str) -> None:
    """Print a line, above a progress bar that may be running."""
    if not _silent:
        tqdm.write(line, file=_RobustStream(sys.stdout))


def answer(text: str) -> None:
    """Print the result of a command to stdout.

    Raises:
      OSError: it could not be written.
    """
    if id(sys.stdout) in _lost:
        raise OSError("the output could not be written")
    print(text, flush=True)


@contextlib.contextmanager
def bar(
    label: str, total: int, *, done: int = 0, unit: str = "slice"
) -> Iterator[tqdm]:
    """Show a tqdm bar of `total` units; without a terminal, print only the label."""
    on_terminal = sys.stderr.isatty() and not _silent
    if not on_terminal:
        say(f"{label}: {pluralize(total - done, unit)}")
    with tqdm(
        desc=label,
        file=_RobustStream(sys.stderr),
        total=total,
        initial=done,
        unit=unit,
        disable=not on_terminal,
        dynamic_ncols=True,
        leave=False,
    ) as progress:
        yield progress
