"""Conv U-Net at a constant learning rate: the first notebook.

python -m lungseg_jax.main --config=configs/conv.py         # three minutes, 3x3 kernels
python -m lungseg_jax.main --config=configs/conv.py:seed    # as in 2018, 1x1 kernels
python -m lungseg_jax.main --config=configs/conv.py:full    # GPU or TPU, 3x3 kernels

As typed, on two CPU cores: pooled IoU 0.976 on Kaggle slices (24 test slices, split
seed 3, threshold 0.5).
"""

from lungseg_jax.training.recipes import (
    NOTEBOOK_EPOCH,
    accelerator,
    laptop,
    notebook,
    recipe,
)


def get_config(variant: str = ""):
    c = recipe(variant, {"": laptop, "seed": notebook, "full": accelerator})
    c.name = "conv" + variant
    c.model.name = "conv"
    c.schedule.name = "constant"
    c.schedule.cycles = 1
    c.schedule.peak = 1e-3
    if not variant:  # the size that was measured
        c.data.image_size = 192
    if variant == "seed":
        c.model.kernel_size = 1
        c.train.total_steps = 2400 * NOTEBOOK_EPOCH
    return c
