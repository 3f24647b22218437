"""The conv U-Net: the first notebook, at a constant learning rate.

    lungseg train --config=configs/conv.py           # a few minutes, 3x3 kernels
    lungseg train --config=configs/conv.py:notebook  # as in 2018, 1x1 kernels
    lungseg train --config=configs/conv.py:full      # GPU or TPU, 3x3 kernels

`:full` anneals the rate to zero in one cycle, because its last weights are scored, and has
seven levels, whose receptive field of 894 pixels covers its pictures.

On the Kaggle slices, the first command reaches a pooled IoU of 0.969 (0.964 to 0.974; 24
test slices, split seed 3, seed 0, threshold 0.5). Version 0.1, without variety and at
256 pixels, had 0.976.
"""

from lungseg_jax.training.recipes import (
    NOTEBOOK_EPOCH,
    accelerator,
    laptop,
    notebook,
    recipe,
)


def get_config(variant: str = ""):
    c = recipe("conv", variant, {"": laptop, "notebook": notebook, "full": accelerator})
    c.model.name = "conv"
    c.schedule.cycles = 1
    if variant == "full":
        c.model.levels = 7
        return c
    c.schedule.name = "constant"
    c.schedule.peak = 1e-3
    if variant == "notebook":
        c.model.kernel_size = 1
        c.train.total_steps = 2400 * NOTEBOOK_EPOCH
    return c
