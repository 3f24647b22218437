"""U-Nets that find the lungs in CT slices, trained and ensembled in JAX.

    import lungseg_jax as ls
    segmentation = ls.load("runs/incp_snapshot-phantom")(image)  # [h w], Hounsfield units
    mask = ls.load()("scan.nii.gz").to_image()  # of SimpleITK
    ls.run_experiment(ls.load_recipe("incp_snapshot"))
    ls.make_model("inception", filters=8)
    image, mask = ls.make_phantom(seed=0, index=0)

Names are imported when they are first used, so that light commands start without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lungseg_jax.data.phantom.dataset import make_phantom
    from lungseg_jax.experiment import run_experiment
    from lungseg_jax.inference.ensemble.lowering import lower_predict
    from lungseg_jax.inference.segmentation import Segmentation
    from lungseg_jax.inference.segmenter import LungSegmenter, load
    from lungseg_jax.models import make_model
    from lungseg_jax.runtime.errors import UserError
    from lungseg_jax.training.config import default_config
    from lungseg_jax.training.programs import lower_train_steps
    from lungseg_jax.training.recipe_files import load_recipe

    __version__: str

_MODULES = {
    "LungSegmenter": "lungseg_jax.inference.segmenter",
    "Segmentation": "lungseg_jax.inference.segmentation",
    "UserError": "lungseg_jax.runtime.errors",
    "default_config": "lungseg_jax.training.config",
    "load": "lungseg_jax.inference.segmenter",
    "load_recipe": "lungseg_jax.training.recipe_files",
    "lower_predict": "lungseg_jax.inference.ensemble.lowering",
    "lower_train_steps": "lungseg_jax.training.programs",
    "make_model": "lungseg_jax.models",
    "make_phantom": "lungseg_jax.data.phantom.dataset",
    "run_experiment": "lungseg_jax.experiment",
}
__all__ = [
    "LungSegmenter",
    "Segmentation",
    "UserError",
    "__version__",
    "default_config",
    "load",
    "load_recipe",
    "lower_predict",
    "lower_train_steps",
    "make_model",
    "make_phantom",
    "run_experiment",
]


def __getattr__(name: str) -> Any:  # PEP 562
    if name == "__version__":
        versions = importlib.import_module("lungseg_jax.runtime.versions")
        return versions.version_of("lungseg_jax")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
