"""Snapshots used together: members stacked into one compiled call, or one after another."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.data.preprocessing import image_to_network, to_slice
from lungseg_jax.training.steps import make_ensemble_predict


class EnsemblePredictor:
    """Members of one model that segment slices of any size.

    Two shapes are compiled, a single slice and a batch, whatever the size of the slices:
    each is scaled to the network's square. Ensembles of equal models share them. Nothing
    changes after `__init__`, so that threads may share one.

    Args:
      model: of every member.
      members: the variables of each, equal in structure and shapes.
      preprocessing: the keywords of `image_to_network`.
      batch_size: slices in one compiled call; a batch that is not full is filled up.
      flips: see `make_ensemble_predict`.
    """

    def __init__(
        self,
        model: Any,
        members: Sequence[Any],
        *,
        preprocessing: Mapping[str, Any],
        batch_size: int = 4,
        flips: bool = False,
    ):
        at_once = jax.default_backend() != "cpu"
        # One after the other they are one program, whatever their number.
        self._members = [stack(members)] if at_once else [stack([m]) for m in members]
        self._predict = make_ensemble_predict(model, vectorize=at_once, flips=flips)
        self._preprocessing = preprocessing
        self._batch_size = batch_size

    def probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """For each image `[h w]`, the members' probabilities of lung, `[m h w]`.

        Memory holds one batch at a time, whatever the number of images.
        """
        images = iter(images)
        while batch := list(islice(images, self._batch_size)):
            inputs = [image_to_network(i, **self._preprocessing) for i in batch]
            if len(inputs) > 1:
                inputs += [inputs[-1]] * (self._batch_size - len(batch))
            inputs = np.stack(inputs)
            outputs = [np.asarray(self._predict(m, inputs)) for m in self._members]
            outputs = np.concatenate(outputs)
            for image, squares in zip(batch, outputs.swapaxes(0, 1), strict=False):
                yield np.stack([to_slice(square, image.shape) for square in squares])


def zip_with_predictions(
    answer: Callable[[Iterable[np.ndarray]], Iterator[Any]],
    items: Iterable[Any],
    *,
    image_of: Callable[[Any], np.ndarray] = lambda item: item,
) -> Iterator[tuple[Any, Any]]:
    """Each item with the answer to its image.

    Args:
      answer: answers images in their order, as `Ensemble.probabilities` does; it may take
        several before it gives the first answer.
      items: images `[h w]`, or what has one.
      image_of: the image of an item.
    """
    waiting = deque()  # taken and not answered yet

    def images():
        for item in items:
            waiting.append(item)
            yield image_of(item)

    for found in answer(images()):
        yield waiting.popleft(), found


def stack(members: Sequence[Any]) -> Any:
    """Trees of equal structure as one, with a leading axis m on each array."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
