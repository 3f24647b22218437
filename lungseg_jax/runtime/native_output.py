"""What libraries in C and C++ print to stderr, past Python."""

import contextlib
import os
import threading
from collections.abc import Iterator

_STDERR = 2
_lock = threading.RLock()  # the descriptor is one for all threads


@contextlib.contextmanager
def discarded() -> Iterator[None]:
    """Discard what is printed to stderr in the block; exceptions pass unchanged."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock)
        try:
            saved = os.dup(_STDERR)
        except OSError:  # it is closed, so nothing can be printed
            saved = None
        if saved is not None:
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, _STDERR)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, _STDERR)
            os.close(null)
        yield
