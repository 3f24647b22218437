"""The program of predictions, lowered without any weights."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lungseg_jax.inference.ensemble.predictor import make_predict
from lungseg_jax.inference.ensemble.trained import make_network
from lungseg_jax.models.variables import trace_init
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.compilation import platform_of, require_platforms
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import check_config, prediction_preprocessing_of


def lower_predict(
    c: ConfigDict,
    mesh: jax.sharding.Mesh,
    *,
    platforms: str | Sequence[str] | None = None,
) -> jax.stages.Lowered:
    """Lower the prediction of a batch by one member; the devices need not be there.

    Args:
      c: the configuration of the run: a batch has `evaluate.batch_size` slices.
      mesh: the devices that share the batch, whatever the axes of the mesh.
      platforms: see `lower_train_steps`; the first one decides on the dtype, see
        `make_network`.

    Raises:
      UserError: the configuration is faulty, its batch does not suit the devices, or a
        platform is unknown.
    """
    platforms = require_platforms(platforms)
    traced = trace_predict(c, mesh, platform=platforms[0] if platforms else None)
    return traced.lower(lowering_platforms=platforms)


def trace_predict(
    c: ConfigDict, mesh: jax.sharding.Mesh, *, platform: str | None = None
) -> jax.stages.Traced:
    """Trace the program of `lower_predict`.

    Args:
      c, mesh: see `lower_predict`.
      platform: decides on the dtype; by default that of the mesh.

    Raises:
      UserError: see `lower_predict`.
    """
    check_config(c)
    mesh = device_mesh.flatten(mesh)
    batch_size, devices = c.evaluate.batch_size, mesh.size
    if batch_size % devices:
        raise UserError(
            f"evaluate.batch_size={batch_size} cannot be divided among {devices} devices.",
            rule=f"a multiple of {devices}.",
        )
    platform = platform or platform_of(device_mesh.replicated(mesh))
    model = make_network(c.model, platform)
    preprocessing = prediction_preprocessing_of(c)
    size, channels = preprocessing.image_size, preprocessing.channels
    shapes = jax.eval_shape(partial(trace_init, model, channels, 0))
    replicated = device_mesh.replicated(mesh)
    variables, views = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
        (dict(shapes), jax.ShapeDtypeStruct((1,), jnp.int32)),
    )
    by_example = device_mesh.by_example(mesh)
    images = jax.ShapeDtypeStruct(
        (batch_size, size, size, channels), jnp.float32, sharding=by_example
    )
    predict = make_predict(model, sharding=by_example)
    return predict.trace(variables, images, views)
