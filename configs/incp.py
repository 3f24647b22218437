"""The inception U-Net: the second notebook, at a constant learning rate.

    lungseg train --config=configs/incp.py           # a few minutes
    lungseg train --config=configs/incp.py:notebook  # as in 2018
    lungseg train --config=configs/incp.py:full      # GPU or TPU

`:full` anneals the rate to zero in one cycle, because its last weights are scored.

On the Kaggle slices, the first command reaches a pooled IoU of 0.972 (0.967 to 0.977; 24
test slices, split seed 3, seed 0, threshold 0.5); earlier trainings had 0.971 and 0.975.
Version 0.1, without variety and at 256 pixels, had 0.978.
"""

from lungseg_jax.training.recipes import accelerator, laptop, notebook, recipe


def get_config(variant: str = ""):
    c = recipe("incp", variant, {"": laptop, "notebook": notebook, "full": accelerator})
    c.schedule.cycles = 1
    if variant != "full":
        c.schedule.name = "constant"
        c.schedule.peak = 1e-3
    return c
