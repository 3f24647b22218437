"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import os
import sys
from collections.abc import Iterator

from tqdm import tqdm

from lungseg_jax.runtime.errors import pluralize

_silent = False
_lost: set[int] = set()  # the id of each stream that nobody reads on


def silence() -> None:
    """Says nothing from here on: of the processes of a job, one speaks."""
    global _silent
    _silent = True


class _Lasting:
    """A stream whose end, a reader that has gone or a full disk, does not end the work."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            _lost.add(id(self._stream))
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def flush(self) -> None:
        pass

    def __getattr__(self, name):
        return getattr(self._stream, name)


def say(line: str) -> None:
    """One line for the reader, above a bar that may be running."""
    if not _silent:
        tqdm.write(line, file=_Lasting(sys.stdout))


def answer(text: str) -> None:
    """What was asked for, on stdout.

    Raises:
      OSError: nobody gets it.
    """
    if id(sys.stdout) in _lost:
        raise OSError("the output could not be written")
    print(text, flush=True)


@contextlib.contextmanager
def bar(
    label: str, total: int, *, done: int = 0, unit: str = "slice"
) -> Iterator[tqdm]:
    """A tqdm bar of `total` units; without a terminal only the label is printed."""
    on_terminal = sys.stderr.isatty() and not _silent
    if not on_terminal:
        say(f"{label}: {pluralize(total - done, unit)}")
    with tqdm(
        desc=label,
        file=_Lasting(sys.stderr),
        total=total,
        initial=done,
        unit=unit,
        disable=not on_terminal,
        dynamic_ncols=True,
        leave=False,
    ) as progress:
        yield progress
