"""What SIGINT, SIGTERM and SIGUSR1 do: a training saves first, all else ends at once.

Python runs its handlers between two bytecodes, which a compilation may hold up for
minutes. A thread therefore hears each signal as it comes, through the wake-up file.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

INTERRUPTED = 130
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: starting again is worth it
STATUS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: PREEMPTED,
    signal.SIGUSR1: PREEMPTED,  # Slurm's warning, with --signal=USR1@60
}
PATIENCE_S = 5.0  # for what is open to be closed, where nothing is to be saved

_listening = False
_raises = False  # else the process just ends: what could catch is not imported yet
_deferred = False
_received: signal.Signals | None = None


class Stopped(KeyboardInterrupt):
    """A signal asked for the end of the command."""

    def __init__(self, received: signal.Signals):
        super().__init__(received.name)
        self.name = received.name
        self.status = STATUS[received]


def listen() -> None:
    """From here on the signals do what this module says; from the main thread."""
    global _listening
    for number in STATUS:
        signal.signal(number, _handle)
    if not _listening:
        _listening = True
        end, start = os.pipe()
        os.set_blocking(start, False)
        signal.set_wakeup_fd(start)
        threading.Thread(target=_hear, args=(end,), daemon=True).start()


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within, a signal raises Stopped."""
    global _raises
    _raises = True
    try:
        yield
    finally:
        _raises = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, the first signal is only noted; at the latest the end of the block stops.

    Raises:
      Stopped: at the end, where one was noted.
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
    """Whether a signal was noted."""
    return _received is not None


def stop(received: signal.Signals | None = None) -> None:
    """Ends what `deferred` has kept going.

    Raises:
      Stopped: always; by SIGTERM where it was another process that was told.
    """
    raise Stopped(received or _received or signal.SIGTERM)


def _handle(number, frame) -> None:
    global _received
    received = signal.Signals(number)
    _received = _received or received
    if _deferred:
        return
    if not _raises:
        _end(received)
    stop(received)


def _hear(end: int) -> None:
    heard = 0
    while True:
        for number in os.read(end, 64):
            if number not in STATUS:
                continue
            heard += 1
            received = signal.Signals(number)
            if heard > 1:
                _end(received)
            if _deferred:
                _say(
                    f"{received.name}: saving after this step; a second one ends at once"
                )
            else:
                end_late = threading.Timer(PATIENCE_S, _end, [received])
                end_late.daemon = True
                end_late.start()


def _end(received: signal.Signals) -> None:
    _say(f"stopped by {received.name}")
    os._exit(STATUS[received])


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        os.write(2, f"\n{text}\n".encode())
