"""Several processes training as one job: how they start, wait for each other, and end.

Every process runs the same command and takes every step; only the primary process writes
files and prints. The processes share the run folder and read the same data, on a common
file system or from copies.
"""

import contextlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from lungseg_jax.runtime import progress, sharing, signals
from lungseg_jax.runtime.errors import UserError

PATIENCE_S = 30.0  # time to finish a checkpoint, after an error
LONGEST_WAIT_S = 7 * 24 * 3600  # for the primary process

_meetings = itertools.count()  # a barrier of JAX is used once


def initialize() -> None:
    """Join the job with `jax.distributed`; must precede any other use of a device.

    Slurm, Open MPI and TPU pods announce the other processes themselves. On other
    clusters, Kubernetes among them, set these environment variables for each process:
    JAX_COORDINATOR_ADDRESS (HOST:PORT of the first process), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID (counted from 0).

    Raises:
      UserError: the job is not described, or the other processes cannot be reached.
    """
    try:
        jax.distributed.initialize(
            num_processes=_integer_variable("JAX_NUM_PROCESSES"),
            process_id=_integer_variable("JAX_PROCESS_ID"),
        )
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"--distributed: this process could not join a job: {e}",
            rule="Slurm, Open MPI and TPU pods announce the processes.",
            remedy="on other clusters, set JAX_COORDINATOR_ADDRESS=HOST:PORT, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process; for a single process, "
            "omit --distributed.",
        ) from e
    signals.install_handlers()  # the JAX runtime has replaced our SIGTERM handler
    if not is_primary():
        progress.silence()


def is_primary() -> bool:
    """Whether this process writes files; always true for a single process."""
    return jax.process_index() == 0


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """Run the block in the primary process, then in all others.

    The others find what the primary has written, so that one block serves both. Meanwhile
    they wait on their hosts, for as long as it takes: in an exchange, their devices would.

    Raises:
      UserError: in the other processes, if the primary has failed.
    """
    if jax.process_count() == 1:
        yield
        return
    done = False
    try:
        if is_primary():
            yield
        done = True
    finally:
        with ending_together():
            meet()
            done = bool(multihost_utils.broadcast_one_to_all(np.array(done)))
    if not done:
        raise UserError(
            "the primary process has failed.", rule="its own error gives the reason."
        )
    if not is_primary():
        with ending_together():
            yield


def meet() -> None:
    """Wait until every process of the job calls this, on the host: no device waits.

    JAX ends the job if the primary process is gone.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # takes 0.5 s, and only jobs need it

    meet = multihost.get_barrier_sync_fn()
    meet(key=f"lungseg_jax {next(_meetings)}", timeout_ms=1000 * LONGEST_WAIT_S)


def any_process(condition: Callable[[], bool], *, ask: bool) -> bool:
    """Whether the condition holds in any process; all processes must call this.

    The processes communicate only where `ask` is true, because that takes time;
    otherwise the answer is False.
    """
    if jax.process_count() == 1:
        return condition()
    return ask and bool(multihost_utils.process_allgather(np.array(condition())).any())


def lowest(value: int) -> int:
    """Return the smallest value of all processes; all of them must call this."""
    return min(sharing.all_gather(int(value)))


def require_common(value: int, what: str) -> None:
    """Check that a value is the same in all processes; all of them must call this.

    Args:
      value: that of this process.
      what: precedes it in the error.

    Raises:
      UserError: in all processes, if it is not.
    """
    values = sharing.all_gather(int(value))
    low, high = min(values), max(values)
    if low != high:
        raise UserError(
            f"the processes of the job differ: {what} {low} for one, {high} for another.",
            rule="all of them read the same files.",
            remedy="run the command again; if that does not help, compare the files that "
            "each process reads.",
        )


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End all processes of a job soon after one of them has failed in the block.

    An exchange with a process that is gone fails when its connections are closed. This
    process then ends at once, with exit status 2: leaving the job in order, or finishing a
    checkpoint, would wait for the other one. JAX itself ends the processes of a job in
    which one has been silent for 100 seconds.

    A process that fails by itself has PATIENCE_S to print its error and to finish a
    checkpoint. Then it ends with the same status, because the others may wait for it in an
    exchange while it waits for them, before it leaves, for JAX's five minutes.
    """
    try:
        yield
    except Exception as e:
        if jax.process_count() > 1:
            if _is_of_runtime(e):
                _end_at_once(e)
            end_late = threading.Timer(PATIENCE_S, os._exit, [2])
            end_late.daemon = True
            end_late.start()
        raise


def _end_at_once(error: Exception) -> None:
    plain = UserError(
        f"an exchange with the other processes failed: {str(error).splitlines()[0]}",
        rule="a job ends when one of its processes does.",
        remedy="the output of the others gives the reason; the same command resumes, "
        "with any number of processes.",
    )
    print(plain, file=sys.stderr, flush=True)
    os._exit(2)


def _is_of_runtime(error: Exception) -> bool:
    """Whether XLA's runtime raised it: JAX makes a ValueError of it in repeated calls."""
    if isinstance(error, ValueError):
        return re.match(r"[A-Z_]+: ", str(error)) is not None  # such as "UNKNOWN: "
    return isinstance(error, jax.errors.JaxRuntimeError)


def _integer_variable(name: str) -> int | None:
    value = os.environ.get(name, "")
    if value and not value.isdecimal():
        raise UserError(f"{name}={value} is not a number.")
    return int(value) if value else None
