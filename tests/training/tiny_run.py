"""A run that trains in seconds, and helpers that stop, read and damage it."""

import contextlib

import pytest

from lungseg_jax import experiment
from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables
from lungseg_jax.training import config, feeds, loop
from lungseg_jax.training.recipes import without_variety

SNAPSHOTS = (4, 7)  # 7 steps in 2 cycles: they end at 4 (3.5 rounded to even) and 7


def tiny_config(cache, **changes):
    """Return a configuration of 7 steps on 10 slices of 32x32 pixels, with two levels.

    Args:
      cache: the cache folder.
      changes: knobs by dotted name, as in `**{"train.total_steps": 9}`.
    """
    c = without_variety(config.default_config())
    c.name = "tiny"
    c.cache_dir = str(cache)
    c.data.phantom_slices = 10
    c.data.test_fraction = 0.2
    c.data.image_size = 32
    c.model.name = "conv"
    c.model.filters = 1
    c.model.levels = 2
    c.train.total_steps = 7
    c.train.batch_size = 3
    c.train.save_every = 2
    c.train.validate_every = 3
    c.train.log_every = 1
    c.schedule.cycles = 2
    c.evaluate.batch_size = 2
    c.update_from_flattened_dict(changes)
    return c


class PowerCut(Exception):
    """Ends a run between two updates, or before its scores."""


def stop_after(step, c, folder, **options):
    """Train until `step` updates were applied, then raise, as a power cut would."""

    def cut_off(take):
        def take_until(feed, at, count):
            if at <= step < at + count:
                raise PowerCut
            return take(feed, at, count)

        return take_until

    with pytest.MonkeyPatch.context() as m:
        for feed in (feeds.ResidentFeed, feeds.StreamedFeed):
            m.setattr(feed, "take", cut_off(feed.take))
        with built_once(), pytest.raises(PowerCut):
            experiment.run_experiment(c, str(folder.path), **options)


def train(c, folder, **options):
    """Train to the end, but leave out the scores and the report."""

    def cut_off(*args):
        raise PowerCut

    with pytest.MonkeyPatch.context() as m:
        m.setattr(experiment, "_finish", cut_off)
        with built_once(), pytest.raises(PowerCut):
            experiment.run_experiment(c, str(folder.path), **options)


_built = {}


@contextlib.contextmanager
def built_once():
    """Trace and compile the functions of a training once per configuration."""
    build, compile_steps = loop._build, loop._compile

    def build_once(c, *args):
        if c.to_json() not in _built:
            _built[c.to_json()] = build(c, *args)
        return _built[c.to_json()]

    def compile_once(training, state):
        key = training.config.to_json(), "compiled"
        if key not in _built:
            _built[key] = compile_steps(training, state)
        return _built[key]

    with pytest.MonkeyPatch.context() as m:
        m.setattr(loop, "_build", build_once)
        m.setattr(loop, "_compile", compile_once)
        yield


def variables_at(folder, step):
    """Restore the variables of a checkpoint."""
    like = abstract_variables(make_model("conv", filters=1, levels=2), channels=1)
    return checkpoints.restore_variables(folder.checkpoints, step, like)


def untimed_rows(folder):
    """Read metrics.jsonl without the speed of the training."""
    rows = folder.read_metrics()
    for row in rows:
        row.pop("steps_per_second", None)
    return rows


def flip_bits_of_arrays(folder, step):
    """Flip bits in every file that holds arrays, whichever of them Orbax reads."""
    files = list((folder.checkpoints / str(step) / "state").rglob("d/*"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        for i in range(50, len(content), 100):
            content[i] ^= 1
        file.write_bytes(content)
