"""Prediction with the members of an ensemble, one after the other."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.data.preprocessing import image_to_network, to_slice, to_unit
from lungseg_jax.runtime import memory
from lungseg_jax.runtime.compilation import jit

LESS_MEMORY = (
    "fewer networks at once, with --members=last; the memory of the host, with "
    "--device=cpu; in a training, a smaller --config.evaluate.batch_size."
)
FLIPS = ((), (1,), (2,), (1, 2))  # axes of [b h w c] and of [b h w]


class EnsemblePredictor:
    """An ensemble of networks of one model that predicts slices of any size.

    Two shapes are compiled, a single slice and a batch, whatever the size of the slices:
    each is scaled to the network's square. Predictors of equal models share the compiled
    programs. Nothing changes after `__init__`, so threads may share a predictor.

    Args:
      model: the network of every member.
      members: the variables of each, equal in structure and shapes.
      preprocessing: the keyword arguments of `image_to_network`.
      batch_size: slices per compiled call; an incomplete batch is padded.
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
        # Called once per member, one program serves any number of members.
        self._members = [stack([member]) for member in members]
        self._predict = make_ensemble_predict(model, flips=flips)
        self._preprocessing = preprocessing
        self._batch_size = batch_size

    def _input(self, image: np.ndarray) -> np.ndarray:
        stored = image_to_network(image, **self._preprocessing)
        return to_unit(stored, **self._preprocessing)

    def probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """For each image `[h w]`, yield the members' probabilities of lung, `[m h w]`.

        Memory holds one batch at a time, whatever the number of images.

        Raises:
          UserError: the memory of the device is too small.
        """
        images = iter(images)
        while batch := list(islice(images, self._batch_size)):
            inputs = [self._input(image) for image in batch]
            if len(inputs) > 1:
                inputs += [inputs[-1]] * (self._batch_size - len(batch))
            inputs = np.stack(inputs)
            with memory.reported(LESS_MEMORY):
                outputs = [np.asarray(self._predict(m, inputs)) for m in self._members]
            outputs = np.concatenate(outputs)
            for image, squares in zip(batch, outputs.swapaxes(0, 1), strict=False):
                yield np.stack([to_slice(square, image.shape) for square in squares])


@functools.cache  # one process often makes many predictors of the same model
def make_ensemble_predict(
    model: Any, *, flips: bool = False, sharding: jax.sharding.Sharding | None = None
) -> Callable:
    """Create `predict(members, images [b h w c]) -> probabilities [m b h w]`.

    The members run one after the other: with `vmap`, their kernels become grouped
    convolutions, which are 1.8 times slower on the CPU (`benchmarks/formulations.py --size
    256`).

    Args:
      model: the network of every member.
      flips: average each member over the image and its three mirror images, at four
        times the cost.
      sharding: placement of the probabilities.

    Returns:
      A compiled function of `members`, variables with a leading axis m on each array.
    """

    def predict(members: Mapping[str, Any], images: jax.Array) -> jax.Array:
        def predict_member(variables):
            def probabilities(x):
                return jax.nn.sigmoid(model.apply(variables, x, train=False))

            if not flips:
                return probabilities(images)
            mirrored = jnp.stack([jnp.flip(images, axes) for axes in FLIPS])
            pairs = zip(jax.lax.map(probabilities, mirrored), FLIPS, strict=True)
            return jnp.stack([jnp.flip(p, axes) for p, axes in pairs]).mean(0)

        return jax.lax.map(predict_member, members)

    return jit(predict, out_shardings=sharding)


def zip_with_predictions(
    predict: Callable[[Iterable[np.ndarray]], Iterator[Any]],
    items: Iterable[Any],
    *,
    image_of: Callable[[Any], np.ndarray] = lambda item: item,
) -> Iterator[tuple[Any, Any]]:
    """Yield each item together with the prediction for its image.

    Args:
      predict: yields predictions in the order of its images, like
        `EnsemblePredictor.probabilities`; it may consume several images before it yields
        the first one.
      items: images `[h w]`, or objects that have one.
      image_of: returns the image of an item.
    """
    pending = deque()  # consumed but not yet predicted

    def images():
        for item in items:
            pending.append(item)
            yield image_of(item)

    for prediction in predict(images()):
        yield pending.popleft(), prediction


def stack(members: Sequence[Any]) -> Any:
    """Combine trees of equal structure, with a leading axis m on each array."""
    # By NumPy: JAX would compile a program for each shape.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *members)
