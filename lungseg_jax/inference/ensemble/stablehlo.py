"""The complete computation of an ensemble as a single StableHLO program.

It runs in JAX, or in any StableHLO runtime, without this package:

    program = jax.export.deserialize(pathlib.Path("program.stablehlo").read_bytes())
    probability, mutual_information = program.call(images)
"""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lungseg_jax.inference.ensemble.predictor import predict_views
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.models import make_model
from lungseg_jax.runtime.compilation import PLATFORMS, fixed_settings

EPSILON = 1e-7  # the float32 probability nearest to 1 is about 1 - EPSILON


def export_program(trained: TrainedEnsemble) -> bytes:
    """Export the members of `trained` as a program for PLATFORMS.

    It takes any number b of float32 images `[b s s]` at the network's size s, with the
    kind of intensities that the run was trained on. It does not pad: scale the longer
    side of a slice to s and pad the shorter one with the lower end of the window. It
    returns the calibrated probability of lung `[b s s]` and the mutual information
    `[b s s]` in bits. With the preprocessing `seed`, it takes the network's input
    `[b s s 3]` instead.
    """
    size, channels = trained.preprocessing.image_size, trained.preprocessing.channels
    windowed = channels == 1
    low, high = trained.window_hu
    model, members = make_model(**trained.model), trained.members.values()
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    views = np.int32([[trained.view(name)] for name in trained.members])
    temperature = trained.settings().temperature

    def program(images):
        if windowed:
            images = ((jnp.clip(images, low, high) - low) / (high - low))[..., None]

        def predict_member(member):
            variables, its_views = member
            return predict_views(model.apply, variables, images, its_views)

        each = jax.lax.map(predict_member, (stacked, views))
        each = jnp.clip(each, EPSILON, 1 - EPSILON)
        mean = each.mean(axis=0)
        logit = jnp.log(mean) - jnp.log1p(-mean)
        information = _entropy(mean) - _entropy(each).mean(axis=0)
        return jax.nn.sigmoid(logit / temperature), jnp.maximum(information, 0.0)

    shape = f"b, {size}, {size}" + ("" if windowed else f", {channels}")
    images = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    with _without_paths():
        traced = jax.jit(fixed_settings()(program))
        exported = export.export(traced, platforms=PLATFORMS)(images)
        return bytes(exported.serialize())


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Keep the paths of this machine's source files out of exported programs."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*")
    try:
        yield
    finally:
        jax.config.update(option, before)


def _entropy(p: jax.Array) -> jax.Array:
    """Entropy of the Bernoulli distribution, in bits."""
    return -(p * jnp.log2(p) + (1 - p) * jnp.log2(1 - p))
