"""Prediction with the members of an ensemble, one after the other."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.data.preprocessing import image_to_network, to_slice, to_unit
from lungseg_jax.runtime import distributed, memory
from lungseg_jax.runtime.compilation import jit

LESS_MEMORY = (
    "fewer networks at once, with --members=last; the memory of the host, with "
    "JAX_PLATFORMS=cpu; in a training, a smaller --config.evaluate.batch_size."
)
FLIPS = ((), (1,), (2,), (1, 2))  # axes of [b h w c] and of [b h w]
SQUARE = itertools.repeat(1.0)  # pixels


class EnsemblePredictor:
    """An ensemble of networks of one model that predicts slices of any size.

    All devices of the process share a batch. Two shapes are compiled, a batch and a slice
    for each device, whatever the size of the slices: each is scaled to the network's
    square. Predictors of equal models share the compiled programs. Nothing changes after
    `__init__`, so threads may share a predictor.

    Args:
      model: the network of every member.
      members: the variables of each, equal in structure and shapes.
      preprocessing: the keyword arguments of `image_to_network`.
      batch_size: slices per compiled call, rounded up to a multiple of the devices; an
        incomplete batch is padded.
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
        # Not those of other processes, which may be about something else.
        mesh = distributed.make_mesh(jax.local_devices())
        self._by_example = distributed.by_example(mesh)
        # Called once per member, one program serves any number of members.
        self._members = [
            distributed.place(stack([member]), distributed.replicated(mesh))
            for member in members
        ]
        self._predict = make_ensemble_predict(
            model, flips=flips, sharding=distributed.by_example(mesh, axis=1)
        )
        self._preprocessing = preprocessing
        self._devices = mesh.size
        self._batch_size = -(-batch_size // mesh.size) * mesh.size

    def _input(self, image: np.ndarray, aspect: float) -> np.ndarray:
        stored = image_to_network(image, aspect=aspect, **self._preprocessing)
        return to_unit(stored, **self._preprocessing)

    def probabilities(
        self, images: Iterable[np.ndarray], *, aspects: Iterable[float] = SQUARE
    ) -> Iterator[np.ndarray]:
        """For each image `[h w]`, yield the members' probabilities of lung, `[m h w]`.

        While the devices compute a batch, the next one is read and waits for them, and the
        caller works on the results of the one before. Memory holds two batches, whatever
        the number of images.

        Args:
          images: slices of any sizes.
          aspects: for each of them, the height of a pixel over its width.

        Raises:
          UserError: the memory of the device is too small.
        """
        slices = zip(images, aspects)
        started = None
        while batch := list(itertools.islice(slices, self._batch_size)):
            outputs = self._start(batch)
            if started:
                yield from self._results(*started)
            started = [(image.shape, aspect) for image, aspect in batch], outputs
        if started:
            yield from self._results(*started)

    def _start(self, batch: Sequence[tuple[np.ndarray, float]]) -> list[jax.Array]:
        """Let the devices compute a batch, `[1 b s s]` for each member; do not wait."""
        inputs = [self._input(image, aspect) for image, aspect in batch]
        is_small = len(batch) <= self._devices
        size = self._devices if is_small else self._batch_size
        inputs += [inputs[-1]] * (size - len(batch))
        with memory.reported(LESS_MEMORY):
            placed = distributed.place(np.stack(inputs), self._by_example)
            return [self._predict(member, placed) for member in self._members]

    def _results(
        self,
        slices: Sequence[tuple[tuple[int, int], float]],
        outputs: Sequence[jax.Array],
    ) -> Iterator[np.ndarray]:
        """Wait for a batch, and yield its probabilities at the sizes of its slices."""
        with memory.reported(LESS_MEMORY):
            squares = np.concatenate([np.asarray(output) for output in outputs])
        for i, (shape, aspect) in enumerate(slices):
            yield np.stack(
                [to_slice(square, shape, aspect) for square in squares[:, i]]
            )


@functools.cache  # one process often makes many predictors of the same model
def make_ensemble_predict(
    model: Any, *, flips: bool = False, sharding: jax.sharding.Sharding | None = None
) -> Callable:
    """Create `predict(members, images [b h w c]) -> probabilities [m b h w]`.

    The members run one after the other: with `vmap`, their kernels become grouped
    convolutions, which are 1.8 times slower on the CPU (`benchmarks/textbook_forms.py
    --size 256`).

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
    predict: Callable[..., Iterator[Any]],
    items: Iterable[Any],
    *,
    image_of: Callable[[Any], np.ndarray] = attrgetter("image"),
    aspect_of: Callable[[Any], float] = attrgetter("aspect"),
) -> Iterator[tuple[Any, Any]]:
    """Yield each item together with the prediction for its image.

    Args:
      predict: yields predictions in the order of its images, like
        `EnsemblePredictor.probabilities`; it may consume several images before it yields
        the first one.
      items: images `[h w]`, or objects that have one.
      image_of: returns the image of an item.
      aspect_of: returns the height of its pixels over their width.
    """
    pending = deque()  # consumed but not yet predicted

    def images():
        for item in items:
            pending.append(item)
            yield image_of(item)

    def aspects():  # each is asked for right after its image
        while True:
            yield aspect_of(pending[-1])

    for prediction in predict(images(), aspects=aspects()):
        yield pending.popleft(), prediction


def stack(members: Sequence[Any]) -> Any:
    """Combine trees of equal structure, with a leading axis m on each array."""
    # By NumPy: JAX would compile a program for each shape.
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *members)
