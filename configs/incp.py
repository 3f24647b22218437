"""Inception U-Net at a constant learning rate: the second notebook.

python -m lungseg_jax.main --config=configs/incp.py         # five minutes
python -m lungseg_jax.main --config=configs/incp.py:seed    # as in 2018
python -m lungseg_jax.main --config=configs/incp.py:full    # GPU or TPU

As typed, on two CPU cores: pooled IoU 0.978 on Kaggle slices (24 test slices, split
seed 3, threshold 0.5).
"""

from lungseg_jax.training.recipes import accelerator, laptop, notebook, recipe


def get_config(variant: str = ""):
    c = recipe(variant, {"": laptop, "seed": notebook, "full": accelerator})
    c.name = "incp" + variant
    c.schedule.name = "constant"
    c.schedule.cycles = 1
    c.schedule.peak = 1e-3
    return c
