"""Ends of commands: exit status and error message; a traceback is a bug.

Exit status 0: done, even if the reader of the output left early, as `head` does; 2: a user
error, printed without a traceback; 75 and 130: stopped by a signal (`signals.STATUS`).
"""

import contextlib
import gc
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import NoReturn, TextIO

from lungseg_jax.runtime import signals
from lungseg_jax.runtime.errors import UserError


@contextlib.contextmanager
def reported(when_interrupted: str) -> Iterator[None]:
    """Run a command in the block; if it fails, print the error and exit with its status.

    Args:
      when_interrupted: what is left and what to do, printed after Ctrl-C or SIGTERM.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals.raise_on_signal(when_interrupted):
            yield
            sys.stdout.flush()
    except UserError as e:
        _exit(2, str(e))
    except OSError as e:  # a full disk, a folder that is not writable
        if isinstance(e, BrokenPipeError) and not _has_reader():
            _discard(sys.stdout)
            sys.exit(0)
        _exit(2, f"error: {_describe(e)}.")
    except KeyboardInterrupt as e:
        name, status = "SIGINT", signals.INTERRUPTED
        if isinstance(e, signals.Stopped):
            name, status = e.name, e.status
        _exit(status, f"\nstopped by {name}; {when_interrupted}")
    finally:
        gc.freeze()  # or Python, as it ends, looks at all of JAX once more: 0.3 s


def _has_reader() -> bool:
    """Whether stdout can be written; it cannot if, as of `| head`, its reader has left."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not poll.poll(0)  # an event that is not asked for: an error, or a hang-up


def _describe(error: OSError) -> str:
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    what = str(error.strerror or error)
    if not isinstance(error, FileNotFoundError):
        return what
    if "temporary directory" in what:  # of tempfile
        return "no folder for temporary files is writable; set TMPDIR to one that is"
    # Of os.getcwd.
    return "the working folder does not exist any more; change to another"


def _exit(status: int, text: str) -> NoReturn:
    """Exit with a status, even if the text cannot be printed to stderr."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)
    sys.exit(status)


def _discard(stream: TextIO) -> None:
    """Drop the buffer of a stream, or Python would try to write it as it ends, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
