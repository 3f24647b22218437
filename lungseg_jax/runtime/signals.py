"""Signal handling: training saves before exiting; other commands exit immediately.

Python runs signal handlers between bytecodes, which a compilation can delay for minutes.
A thread therefore receives each signal as it arrives, through the wake-up descriptor.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

INTERRUPTED = 130
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: worth running again
STATUS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: PREEMPTED,
    signal.SIGHUP: PREEMPTED,  # the terminal was closed
    signal.SIGUSR1: PREEMPTED,  # Slurm's warning, with --signal=USR1@60
}
PATIENCE_S = 5.0  # time to close open files, where nothing is saved
# One request can arrive twice: timeout(1) signals its child, and then its whole group.
TWICE_S = 1.0

_installed = False
_raises = False  # otherwise the process exits: nothing to catch it is imported yet
_deferred = False
_last_words = ""
_received: signal.Signals | None = None


class Stopped(KeyboardInterrupt):
    """A signal asked the command to stop."""

    def __init__(self, received: signal.Signals):
        super().__init__(received.name)
        self.name = received.name
        self.status = STATUS[received]


def install_handlers() -> None:
    """Install the handlers of all signals in STATUS; call from the main thread."""
    global _installed
    for number in STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _handle)
    if not _installed:
        _fill_descriptors()
        sys.unraisablehook = _report_unraisable
        _installed = True
        end, start = os.pipe()
        os.set_blocking(start, False)
        signal.set_wakeup_fd(start)
        threading.Thread(target=_receive, args=(end,), daemon=True).start()


@contextlib.contextmanager
def raise_on_signal(last_words: str) -> Iterator[None]:
    """Raise Stopped on a signal in the block; if it is slow to end, print `last_words`."""
    global _raises, _last_words
    _raises, _last_words = True, last_words
    try:
        yield
    finally:
        _raises = False


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Only record the first signal in the block, and stop at its end at the latest.

    Raises:
      Stopped: at the end of the block, if a signal was recorded.
    """
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    if requested():
        stop()


def requested() -> bool:
    """Whether a signal was recorded."""
    return _received is not None


def stop(received: signal.Signals | None = None) -> None:
    """End a block of `defer_signals`.

    Raises:
      Stopped: always; with SIGTERM if only another process received a signal.
    """
    raise Stopped(received or _received or signal.SIGTERM)


def _handle(number, frame) -> None:
    global _received
    received, is_first = signal.Signals(number), _received is None
    _received = _received or received
    if _deferred:
        return
    if not _raises or _is_importing(frame):
        _end(received)
    if is_first:  # `_receive` decides what another one means
        stop(received)


def _is_importing(frame) -> bool:
    """Whether a module is being imported: native ones can crash on an exception.

    Ending at once loses nothing: where something has to be saved, signals are deferred.
    """
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _receive(end: int) -> None:
    received_at: dict[signal.Signals, float] = {}
    while True:
        for number in os.read(end, 64):
            if number not in STATUS:
                continue
            received = signal.Signals(number)
            now = time.monotonic()
            if now - received_at.get(received, -math.inf) < TWICE_S:
                continue
            # SIGTERM often follows SIGHUP or SIGUSR1 and means the same.
            if received in received_at or received_at and received == signal.SIGINT:
                _end(received)
            received_at[received] = now
            if len(received_at) > 1:
                continue
            if _deferred:
                _print(
                    f"{received.name}: saving after this step; send it again to exit now"
                )
            else:
                end_late = threading.Timer(PATIENCE_S, _end, [received])
                end_late.daemon = True
                with contextlib.suppress(RuntimeError):  # Python has begun to end
                    end_late.start()


def _end(received: signal.Signals) -> None:
    _print(f"stopped by {received.name}; {_last_words}".rstrip("; "))
    os._exit(STATUS[received])


def _report_unraisable(error, report=sys.unraisablehook) -> None:
    """Report an exception that Python swallows, as in a callback of its collector.

    A Stopped needs no words: the thread ends the process soon.
    """
    if not isinstance(error.exc_value, Stopped):
        report(error)


def _fill_descriptors() -> None:
    """Open closed standard streams, or the next file opened would receive their output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal was closed
        os.write(2, f"\n{text}\n".encode())
