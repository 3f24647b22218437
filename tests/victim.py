"""The training command, which kills itself: `victim.py PLACE SECONDS [arguments]`.

SIGKILL comes so many seconds after PLACE is first reached, as no handler can see it.
"""

import importlib
import os
import signal
import sys
import threading

PLACES = {  # what is about to be called
    "start": "",
    "data": "experiment._load",
    "compilation": "train._compile",
    "step": "train._batches",
    "save": "checkpoints.Checkpoints.save",
    "statistics": "train.make_population_stats",
    "row": "run_folder.RunFolder.append_metrics",
    "scores": "scoring.score",
    "report": "report.write",
}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killing(function, seconds):
    def wrapped(*args, **kwargs):
        threading.Timer(seconds, kill).start()
        return function(*args, **kwargs)

    return wrapped


def arm(place, seconds):
    if not PLACES[place]:
        threading.Timer(seconds, kill).start()
        return
    module, *path, name = PLACES[place].split(".")
    owner = importlib.import_module(f"lungseg_jax.{module}")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    if name.startswith("make_"):  # what it makes is meant
        setattr(owner, name, lambda *args, **kw: killing(real(*args, **kw), seconds))
    else:
        setattr(owner, name, killing(real, seconds))


if __name__ == "__main__":
    place, seconds = sys.argv[1], float(sys.argv[2])
    sys.argv[1:3] = []
    from lungseg_jax import cli, main

    arm(place, seconds)
    cli.run(main.main, "", when_interrupted="")
