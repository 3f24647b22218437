"""The programs of a training, as its configuration says, and lowered without any data."""

import operator
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from lungseg_jax.data.packed_masks import packed_dtype
from lungseg_jax.models import make_model
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.compilation import require_platforms
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import check_config, preprocessing_of
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.optimizers import make_optimizer
from lungseg_jax.training.scaling import check_batch
from lungseg_jax.training.schedules import make_schedule
from lungseg_jax.training.state import TrainState, make_init_fn
from lungseg_jax.training.steps import make_train_steps

SLICE = (512, 512)  # what a program without data is lowered for


def schedule_of(c: ConfigDict) -> optax.Schedule:
    """Return the learning rate by step."""
    return make_schedule(total_steps=c.train.total_steps, **c.schedule)


def init_of(c: ConfigDict, mesh: jax.sharding.Mesh) -> Callable[[], TrainState]:
    """Return the function that makes the state before the first update."""
    channels = preprocessing_of(c).channels
    return make_init_fn(
        make_model(**c.model),
        make_optimizer(schedule_of(c), image_channels=channels, **c.optimizer),
        channels=channels,
        seed=c.seed,
        track_loss=c.train.outlier_factor > 0,
        sharding=device_mesh.replicated(mesh),
    )


def train_steps_of(
    c: ConfigDict, mesh: jax.sharding.Mesh, *, gather: Callable = operator.getitem
) -> Callable:
    """Return the function of `make_train_steps`."""
    return make_train_steps(
        loss=LOSSES[c.train.loss],
        outlier_knee=c.train.outlier_knee,
        outlier_factor=c.train.outlier_factor,
        augmentation=c.augment.to_dict(),
        normalize=preprocessing_of(c).to_unit,
        seed=c.seed,
        accumulate=c.train.accumulate,
        gather=gather,
        sharding=device_mesh.replicated(mesh),
    )


def train_steps_arguments(
    c: ConfigDict, mesh: jax.sharding.Mesh, state: TrainState, images, masks
) -> tuple:
    """Return the arguments that `train_steps_of` is lowered for.

    Args:
      c: the configuration.
      mesh: the devices that share a batch.
      state: the `eval_shape()` of `init_of`.
      images, masks: all slices, as arrays or as their shapes.
    """
    replicated = device_mesh.replicated(mesh)
    state = jax.tree.map(lambda leaf: leaf.update(sharding=replicated), state)
    indices = jax.ShapeDtypeStruct(
        (c.train.steps_per_dispatch, c.train.batch_size),
        np.int32,
        sharding=device_mesh.by_example(mesh, axis=1),
    )
    return state, images, masks, indices, np.int32(1)


def lower_train_steps(
    c: ConfigDict,
    mesh: jax.sharding.Mesh,
    slices: int,
    *,
    platforms: str | Sequence[str] | None = None,
) -> jax.stages.Lowered:
    """Lower the updates of a training; neither data nor the devices need to be there.

    Args:
      c: the configuration.
      mesh: the devices that share a batch, whatever the axes of the mesh, such as
        `jax.make_mesh((8,), ("batch",))`.
      slices: size of the training split, all of which is on every device, and
        `data.extra_phantoms` beside it.
      platforms: cpu, cuda or tpu; by default that of the mesh. A program for others can
        be read, but not compiled; whether its rows are folded follows the mesh.

    Returns:
      The program, whose `compile()` tells how it suits the devices.

    Raises:
      UserError: the configuration is faulty, its batch does not suit the slices or the
        devices, or a platform is unknown.
    """
    platforms = require_platforms(platforms)
    return trace_train_steps(c, mesh, slices).lower(lowering_platforms=platforms)


def trace_train_steps(
    c: ConfigDict, mesh: jax.sharding.Mesh, slices: int
) -> jax.stages.Traced:
    """Trace the program of `lower_train_steps`.

    Args:
      c, mesh, slices: see `lower_train_steps`.

    Raises:
      UserError: see `lower_train_steps`.
    """
    check_config(c)
    mesh = device_mesh.flatten(mesh)
    if slices < c.train.batch_size:
        raise UserError(
            f"slices={slices} are fewer than a batch, train.batch_size="
            f"{c.train.batch_size}.",
            rule="a batch is at most the training split.",
            remedy="more slices, or a smaller train.batch_size.",
        )
    check_batch(c, training_slices=slices, devices=mesh.size)
    replicated, size = device_mesh.replicated(mesh), c.data.image_size
    preprocessing = preprocessing_of(c)
    masks_dtype = packed_dtype(
        [(*SLICE, 1.0)], preprocessing, soft_masks=c.data.soft_masks
    )
    shape = slices + c.data.extra_phantoms, size, size
    images, masks = (
        jax.ShapeDtypeStruct((*shape, *rest), dtype, sharding=replicated)
        for rest, dtype in (
            ((preprocessing.channels,), preprocessing.image_dtype),
            ((), masks_dtype),
        )
    )
    state = init_of(c, mesh).eval_shape()
    arguments = train_steps_arguments(c, mesh, state, images, masks)
    return train_steps_of(c, mesh).trace(*arguments)
