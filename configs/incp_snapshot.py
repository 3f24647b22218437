"""The inception U-Net with cosine restarts and a snapshot ensemble: the third notebook.

    lungseg train --config=configs/incp_snapshot.py           # five to nine minutes
    lungseg train --config=configs/incp_snapshot.py:scratch   # likewise
    lungseg train --config=configs/incp_snapshot.py:long      # half an hour
    lungseg train --config=configs/incp_snapshot.py:phantoms  # those of the package
    lungseg train --config=configs/incp_snapshot.py:notebook  # as in 2018
    lungseg train --config=configs/incp_snapshot.py:full      # GPU or TPU

The first and the third command start from the weights of the package, the others from
scratch. The first reaches a pooled IoU of 0.975 on the Kaggle slices (24 test slices, split
seed 3, seed 0, threshold 0.5). Times are those of two CPU cores.
"""

from lungseg_jax.training.recipes import (
    accelerator,
    fine_tuning,
    laptop,
    long,
    notebook,
    phantoms_only,
    recipe,
)


def get_config(variant: str = ""):
    variants = {
        "": fine_tuning,
        "scratch": laptop,
        "long": long,
        "phantoms": phantoms_only,
        "notebook": notebook,
        "full": accelerator,
    }
    c = recipe("incp_snapshot", variant, variants)
    if variant == "notebook":
        c.schedule.name = "cosine_restarts"
        c.schedule.cycles = 8
    return c
