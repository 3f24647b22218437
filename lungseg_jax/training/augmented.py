"""Slices as a training changes them, to look at and to stress a network with."""

from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.sampling import mixed_batch_indices
from lungseg_jax.runtime import memory
from lungseg_jax.runtime.compilation import jit
from lungseg_jax.training.config import preprocessing_of
from lungseg_jax.training.run_data import network_slices
from lungseg_jax.training.scaling import batch_on_one_device, memory_remedy
from lungseg_jax.training.steps import make_prepare

STRESSED = 2  # times that each validation slice is changed for the limit of review


def augmented_slices(
    c: ConfigDict,
    dataset: Dataset,
    names: Sequence[str],
    extra: Dataset | None = None,
    *,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the first updates of a training on these slices see.

    Args:
      c: a complete configuration.
      dataset: holds the slices.
      names: of the slices.
      extra: phantoms that are mixed into the batches.
      steps: updates; n is their number times the size of a batch.

    Returns:
      Images `[n s s]`, in [0, 1] over the window, and masks `[n s s]`, in [0, 1].
    """
    slices = network_slices(c, dataset, names, extra)
    normalize = preprocessing_of(c).to_unit
    prepare = jit(make_prepare(c.augment.to_dict(), normalize, c.seed))
    batches = []
    for step in range(steps):
        batch = mixed_batch_indices(
            step,
            n=len(names),
            extra=len(extra.names) if extra else 0,
            share=c.data.extra_share,
            batch_size=c.train.batch_size,
            seed=c.seed,
        )
        arrays, rows = slices.stack(batch), np.arange(len(batch), dtype=np.int32)
        prepared = prepare(arrays["image"], arrays["mask"], rows, np.int32(step))
        batches.append(jax.device_get(prepared))
    images, masks = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images.mean(axis=-1), masks


def stressed_slices(
    c: ConfigDict, dataset: Dataset, names: Sequence[str]
) -> list[Slice]:
    """Return changed slices, from which `tune` also chooses the limits of review.

    Args:
      c: the configuration of the run.
      dataset: its data.
      names: its validation split.

    Returns:
      STRESSED slices for each name; none for the damaged pixels of the notebooks.

    Raises:
      UserError: the devices have too little memory.
    """
    if not names or c.data.preprocessing == "seed":
        return []
    count = STRESSED * len(names)
    c = c.copy_and_resolve_references()
    c.train.batch_size = batch_on_one_device(c)
    steps = -(-count // c.train.batch_size)
    with memory.reported(memory_remedy(c)):
        images, masks = augmented_slices(c, dataset, names, steps=steps)
    low, high = preprocessing_of(c).window_hu
    return [
        Slice("", low + image * (high - low), (mask > 0.5).astype(np.uint8))
        for image, mask in zip(images[:count], masks[:count], strict=True)
    ]
