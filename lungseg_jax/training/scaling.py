"""How a run fits its devices: knobs that trade memory, and a batch for each device."""

from typing import Any

from ml_collections import ConfigDict

from lungseg_jax.training.knobs import flat

MEMORY_KNOBS = ("train.accumulate", "model.remat", "model.precision")


def memory_knobs(c: ConfigDict) -> dict[str, Any]:
    """Return the values of MEMORY_KNOBS, for run.json."""
    values = flat(c.to_dict())
    return {name: values[name] for name in MEMORY_KNOBS}


def memory_remedy(c: ConfigDict) -> str:
    """Name the knobs that make an update take less memory, the gentlest first."""
    size, parts = c.train.batch_size, c.train.accumulate
    more = [n for n in range(parts + 1, size + 1) if size % n == 0]
    options = [f"train.accumulate={more[0]}"] if more else []
    options += [] if c.model.remat else ["model.remat=true"]
    options += [] if c.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]
    options.append(f"a data.image_size below {c.data.image_size}")
    return f"--config.{', '.join(options)}; with another --workdir, for another run."
