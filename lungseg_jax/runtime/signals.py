"""What the signals of STATUS do: a training saves first, all else ends at once.

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
    signal.SIGHUP: PREEMPTED,  # the terminal is gone
    signal.SIGUSR1: PREEMPTED,  # Slurm's warning, with --signal=USR1@60
}
PATIENCE_S = 5.0  # for what is open to be closed, where nothing is to be saved

_listening = False
_raises = False  # else the process just ends: what could catch is not imported yet
_deferred = False
_last_words = ""
_received: signal.Signals | None = None


class Stopped(KeyboardInterrupt):
    """A signal asked for the end of the command."""

    def __init__(self, received: signal.Signals):
        super().__init__(received.name)
        self.name = received.name
        self.status = STATUS[received]


def install_handlers() -> None:
    """From here on the signals do what this module says; from the main thread."""
    global _listening
    for number in STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _handle)
    if not _listening:
        _fill_descriptors()
        _listening = True
        end, start = os.pipe()
        os.set_blocking(start, False)
        signal.set_wakeup_fd(start)
        threading.Thread(target=_hear, args=(end,), daemon=True).start()


@contextlib.contextmanager
def raise_on_signal(last_words: str) -> Iterator[None]:
    """Within, a signal raises Stopped; where that takes long, the last words are said."""
    global _raises, _last_words
    _raises, _last_words = True, last_words
    try:
        yield
    finally:
        _raises = False


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
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
    heard = set()
    while True:
        for number in os.read(end, 64):
            if number not in STATUS:
                continue
            received = signal.Signals(number)
            # SIGTERM after SIGHUP, or after SIGUSR1, is the same end once more.
            if received in heard or heard and received == signal.SIGINT:
                _end(received)
            heard.add(received)
            if len(heard) > 1:
                continue
            if _deferred:
                _say(
                    f"{received.name}: saving after this step; the same again ends at once"
                )
            else:
                end_late = threading.Timer(PATIENCE_S, _end, [received])
                end_late.daemon = True
                end_late.start()


def _end(received: signal.Signals) -> None:
    _say(f"stopped by {received.name}; {_last_words}".rstrip("; "))
    os._exit(STATUS[received])


def _fill_descriptors() -> None:
    """A file that took the place of a closed stderr would get what is said there."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        os.write(2, f"\n{text}\n".encode())
