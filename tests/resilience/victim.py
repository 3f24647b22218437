"""The training command with a time bomb: `victim.py PLACE SECONDS [arguments]`.

It sends itself SIGKILL, which cannot be handled, SECONDS after it first reaches PLACE.
"""

import os
import pkgutil
import signal
import sys
import threading

PLACES = {  # the function that is about to be called
    "start": "",
    "data": "experiment.load_run_data",
    "compilation": "training.loop._compile",
    "step": "training.loop._dispatch",
    "save": "checkpointing.local_checkpoints.LocalCheckpoints.save",
    "statistics": "training.loop.make_precise_batch_stats",
    "row": "training.run_folder.RunFolder.append_metrics",
    "scores": "experiment.evaluate_on_test",
    "report": "experiment.write_run_page",
}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killing(function, seconds):
    def wrapped(*args, **kwargs):
        threading.Timer(seconds, kill).start()
        return function(*args, **kwargs)

    return wrapped


def locate(place):
    """Return the owner of a place's function, and its name there."""
    owner, _, name = PLACES[place].rpartition(".")
    return pkgutil.resolve_name(f"lungseg_jax.{owner}"), name


def arm(place, seconds):
    if not PLACES[place]:
        threading.Timer(seconds, kill).start()
        return
    owner, name = locate(place)
    real = getattr(owner, name)
    if name.startswith("make_"):  # the function that it returns is meant
        setattr(owner, name, lambda *args, **kw: killing(real(*args, **kw), seconds))
    else:
        setattr(owner, name, killing(real, seconds))


if __name__ == "__main__":
    place, seconds = sys.argv[1], float(sys.argv[2])
    sys.argv[1:3] = []
    from lungseg_jax.cli import train

    arm(place, seconds)
    train.main()
