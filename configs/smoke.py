"""The complete pipeline on tiny data: two cycles, several checkpoints.

    lungseg train --config=configs/smoke.py

Takes less than 40 seconds on two CPU cores; the scores are meaningless.
"""

from lungseg_jax.training.config import default_config
from lungseg_jax.training.recipes import recipe, without_variety


def get_config(variant: str = ""):
    c = recipe("smoke", variant, {"": default_config})
    without_variety(c)  # quick to compile
    c.data.phantom_slices = 24
    c.data.image_size = 64
    c.model.name = "conv"  # compiles in a third of the time
    c.model.filters = 4
    c.train.total_steps = 45
    c.train.batch_size = 4
    c.schedule.cycles = 2
    c.train.save_every = 10
    c.train.validate_every = 10
    c.train.log_every = 5
    return c
