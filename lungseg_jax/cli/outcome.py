"""How commands end: with a plain error, or stopped by a signal; a traceback is a bug.

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
        print(e, file=sys.stderr)
        sys.exit(2)
    except OSError as e:  # a full disk, a folder that is not writable
        if isinstance(e, BrokenPipeError) and not _has_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        what = f"{e.filename}: {e.strerror}" if e.filename else e.strerror or e
        if isinstance(e, FileNotFoundError) and not e.filename:  # of os.getcwd
            what = "the working folder does not exist any more; change to another"
        print(f"error: {what}.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as e:
        name, status = "SIGINT", signals.INTERRUPTED
        if isinstance(e, signals.Stopped):
            name, status = e.name, e.status
        print(f"\nstopped by {name}; {when_interrupted}", file=sys.stderr)
        sys.exit(status)
    finally:
        gc.freeze()  # or Python, as it ends, looks at all of JAX once more: 0.3 s


def _has_reader() -> bool:
    """Whether stdout can be written; it cannot if, as of `| head`, its reader has left."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not poll.poll(0)  # an event that is not asked for: an error, or a hang-up
