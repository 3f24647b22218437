"""The public API: names are imported when they are first used."""

import importlib.metadata
import subprocess
import sys

import pytest

import lungseg_jax as ls

NAMES = [
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

LIGHT_IMPORT = """
import sys
import lungseg_jax as ls
assert issubclass(ls.UserError, Exception)
heavy = {"jax", "flax", "optax", "orbax", "matplotlib", "SimpleITK", "cv2", "absl"}
imported = heavy & {name.partition(".")[0] for name in sys.modules}
assert not imported, imported
ls.make_model
assert "jax" in sys.modules
"""


def test_importing_the_package_does_not_import_jax():
    subprocess.run([sys.executable, "-c", LIGHT_IMPORT], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_resolve(name):
    assert getattr(ls, name) is not None


def test_all_and_dir_list_the_public_names():
    assert sorted(ls.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(ls))


def test_public_names_are_those_of_their_modules():
    from lungseg_jax.inference.segmentation import Segmentation
    from lungseg_jax.inference.segmenter import LungSegmenter, load
    from lungseg_jax.models import make_model
    from lungseg_jax.runtime.errors import UserError

    assert ls.load is load and ls.LungSegmenter is LungSegmenter
    assert ls.Segmentation is Segmentation and ls.UserError is UserError
    assert ls.make_model is make_model
    assert ls.__version__ == importlib.metadata.version("lungseg_jax")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        ls.segment  # noqa: B018
    with pytest.raises(ImportError):
        from lungseg_jax import segment  # noqa: F401


def test_default_config_is_a_fresh_copy():
    config = ls.default_config()
    config.name = "changed"
    assert ls.default_config().name != "changed"
