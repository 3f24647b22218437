"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Iterator

from tqdm import tqdm

from lungseg_jax.errors import counted

_silent = False


def silence() -> None:
    """Says nothing from here on: of the processes of a job, one speaks."""
    global _silent
    _silent = True


def say(line: str) -> None:
    """One line for the reader, above a bar that may be running."""
    if not _silent:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def bar(
    label: str, total: int, *, done: int = 0, unit: str = "slice"
) -> Iterator[tqdm]:
    """A tqdm bar of `total` units; without a terminal only the label is printed."""
    on_terminal = sys.stderr.isatty() and not _silent
    if not on_terminal:
        say(f"{label}: {counted(total - done, unit)}")
    with tqdm(
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        disable=not on_terminal,
        dynamic_ncols=True,
        leave=False,
    ) as progress:
        yield progress
