"""Validation during training, at the network's size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.metrics.overlap import count_pixels, summarize
from lungseg_jax.models import make_model
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.compilation import jit
from lungseg_jax.training.config import preprocessing_of
from lungseg_jax.training.losses import LOSSES, Loss
from lungseg_jax.training.run_data import RunData, network_slices
from lungseg_jax.training.state import TrainState


def make_validate(
    c: ConfigDict, mesh: jax.sharding.Mesh, data: RunData
) -> Callable[[TrainState], dict[str, float | None]]:
    """Create `validate(state) -> {"loss", "iou_pooled"}`, at the network's size.

    Without a validation split, `validate` returns an empty dict. The IoU is None if all
    masks and predictions are empty.

    The slices are kept in the memory of the host, or if the training slices are streamed,
    read from disk at each validation.
    """
    names = data.split["validation"]
    if not names:
        return lambda state: {}
    slices = network_slices(c, data.dataset, names)
    arrays = None if data.is_streamed else slices.stack()
    eval_step = make_eval_step(
        make_model(**c.model),
        loss=LOSSES[c.train.loss],
        threshold=c.evaluate.threshold,
        sharding=device_mesh.replicated(mesh),
    )
    size = min(c.evaluate.batch_size, len(names))
    size = -(-size // mesh.size) * mesh.size
    batches = [
        np.resize(np.arange(start, min(start + size, len(names))), size)
        for start in range(0, len(names), size)
    ]

    def validate(state: TrainState) -> dict[str, float | None]:
        outputs, losses, rows = [], [], []
        for batch in batches:
            part = slices.stack(batch) if arrays is None else _rows(arrays, batch)
            images = preprocessing_of(c).to_unit(part["image"])
            inputs = images, unpack_masks(part["mask"])
            inputs = device_mesh.place(inputs, device_mesh.by_example(mesh))
            outputs.append(eval_step(state.variables, *inputs))
            jax.block_until_ready(outputs[-2:-1])  # devices hold two batches, not all
        for batch, (batch_losses, counts) in zip(
            batches, jax.device_get(outputs), strict=True
        ):
            unpadded = len(np.unique(batch))
            losses += batch_losses[:unpadded].tolist()
            rows += counts[:unpadded].tolist()
        scores = summarize(rows, resamples=0)
        return {"loss": float(np.mean(losses)), "iou_pooled": scores["iou_pooled"]}

    return validate


def make_eval_step(
    model: Any,
    *,
    loss: Loss,
    threshold: float,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """Create `step(variables, images, masks) -> (losses [b], counts [b 3])`, compiled.

    Counts are those of `overlap.count_pixels` at the network's size, against the soft masks
    binarized at 0.5. `sharding` applies to both results.
    """

    def step(variables: Mapping[str, Any], images: jax.Array, masks: jax.Array):
        logits = model.apply(variables, images, train=False)
        predicted = jax.nn.sigmoid(logits) > threshold
        return loss(logits, masks), count_pixels(predicted, masks >= 0.5)

    return jit(step, out_shardings=sharding)


def make_segment(
    c: ConfigDict, dataset: Dataset, names: Sequence[str]
) -> Callable[[Any], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Create `segment(variables) -> (images, masks, truths)` of some slices.

    All are `[n s s]`, at the network's size: images in [0, 1], the masks boolean.
    """
    model = make_model(**c.model)
    arrays = network_slices(c, dataset, names).stack()
    truths = unpack_masks(arrays["mask"]) >= 0.5
    images = np.asarray(preprocessing_of(c).to_unit(arrays["image"]))

    @jit
    def predict(variables, images):
        logits = model.apply(variables, images, train=False)
        return jax.nn.sigmoid(logits) > c.evaluate.threshold

    def segment(variables):
        masks = np.asarray(predict(variables, images))
        return images[..., 0], masks, truths

    return segment


def _rows(arrays: dict[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in arrays.items()}
