"""Several processes, on one machine or on many, that train together as one job.

Each runs the same command. All of them take every step; the first alone writes files and
speaks. They share the run folder and see the same data, on a file system that is common
to them or, the data, on copies.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from lungseg_jax.runtime import progress, signals
from lungseg_jax.runtime.errors import UserError


def initialize() -> None:
    """Joins the job by `jax.distributed`; before anything else asks for a device.

    Slurm, Open MPI, Kubernetes and TPU pods say by themselves who else there is.
    Elsewhere the environment does, for each process: JAX_COORDINATOR_ADDRESS, as
    host:port of the first, JAX_NUM_PROCESSES and JAX_PROCESS_ID, from 0.

    Raises:
      UserError: nothing says so, or the others cannot be reached.
    """
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"),
            process_id=_number("JAX_PROCESS_ID"),
        )
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"--distributed: this process could not join a job: {e}",
            rule="Slurm, Open MPI, Kubernetes and TPU pods tell a process of the others.",
            remedy="elsewhere set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES "
            "and JAX_PROCESS_ID for each; without other processes, omit --distributed.",
        ) from e
    signals.install_handlers()  # the runtime has replaced our handler of SIGTERM
    if not is_primary():
        progress.silence()


def is_primary() -> bool:
    """Whether this process is the one that writes; where there is one, it is."""
    return jax.process_index() == 0


def any_process(condition: Callable[[], bool], *, ask: bool) -> bool:
    """Whether the condition holds in any process; all have to call this.

    The others are asked only where `ask` is true, for it takes time; else it is False.
    """
    if jax.process_count() == 1:
        return condition()
    return ask and bool(multihost_utils.process_allgather(np.array(condition())).any())


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """The first process carries out the block, then the others do.

    What the first has written, the others find; one block serves both.

    Raises:
      UserError: in the others, where the first has failed.
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
        done = bool(multihost_utils.broadcast_one_to_all(np.array(done)))
    if not done:
        raise UserError("the first process has failed.", rule="its own error says why.")
    if not is_primary():
        yield


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    if value and not value.isdecimal():
        raise UserError(f"{variable}={value} is not a number.")
    return int(value) if value else None
