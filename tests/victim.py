"""The training command, which kills itself: `victim.py PLACE SECONDS [arguments]`.

SIGKILL comes so many seconds after PLACE is first reached, as no handler can see it.
"""

import os
import signal
import sys
import threading

from lungseg_jax import checkpoints, cli, evaluate, experiment, main, report, train
from lungseg_jax.run_folder import RunFolder


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killing(function, seconds):
    def wrapped(*args, **kwargs):
        threading.Timer(seconds, kill).start()
        return function(*args, **kwargs)

    return wrapped


def made_killing(make, seconds):
    """For what makes the function that is meant."""
    return lambda *args, **kwargs: killing(make(*args, **kwargs), seconds)


PLACES = {
    "start": None,
    "data": (experiment, "_load", killing),
    "compilation": (train, "_compile", killing),
    "step": (train, "_batches", killing),
    "save": (checkpoints.Checkpoints, "save", killing),
    "statistics": (train, "make_population_stats", made_killing),
    "row": (RunFolder, "append_metrics", killing),
    "scores": (evaluate, "score", killing),
    "report": (report, "write", killing),
}

if __name__ == "__main__":
    place, seconds = sys.argv[1], float(sys.argv[2])
    sys.argv[1:3] = []
    if PLACES[place]:
        owner, name, wrap = PLACES[place]
        setattr(owner, name, wrap(getattr(owner, name), seconds))
    else:
        threading.Timer(seconds, kill).start()
    cli.run(main.main, "", when_interrupted="")
