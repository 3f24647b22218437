"""Inception U-Net at a constant learning rate: the second notebook.

python -m lungseg_jax.main --config=configs/incp.py         # six minutes
python -m lungseg_jax.main --config=configs/incp.py:seed    # as in 2018
python -m lungseg_jax.main --config=configs/incp.py:full    # GPU or TPU
"""

from lungseg_jax.recipes import accelerator, laptop, notebook, recipe


def get_config(variant: str = ""):
    c = recipe(variant, {"": laptop, "seed": notebook, "full": accelerator})
    c.name = "incp" + variant
    c.schedule.name = "constant"
    c.schedule.cycles = 1
    c.schedule.peak = 1e-3
    return c
