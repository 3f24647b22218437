"""Prediction with the members of an ensemble, one after the other."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import jax
import numpy as np

from lungseg_jax.data.preprocessing import Preprocessing, to_slice
from lungseg_jax.inference.ensemble.views import mirror
from lungseg_jax.runtime import device_mesh, memory
from lungseg_jax.runtime.compilation import jit

LESS_MEMORY = (
    "fewer networks at once, with --members=last; the memory of the host, with "
    "JAX_PLATFORMS=cpu; in a training, a smaller --config.evaluate.batch_size."
)


class EnsemblePredictor:
    """An ensemble of networks of one model that predicts slices of any size.

    All devices of the process share a batch. Two shapes are compiled, a batch and a slice
    for each device, whatever the size of the slices: each is scaled to the network's
    square. Predictors of equal models share the compiled programs. Nothing changes after
    `__init__`, so threads may share a predictor.

    Args:
      model: the network of every member.
      members: the variables of each, equal in structure and shapes.
      preprocessing: of the slices.
      batch_size: slices per compiled call, rounded up to a multiple of the devices; an
        incomplete batch is padded.
      views: for each member, those of `views.VIEWS` that it sees, and over which its
        probabilities are averaged; as many for each.
    """

    def __init__(
        self,
        model: Any,
        members: Sequence[Any],
        *,
        preprocessing: Preprocessing,
        batch_size: int,
        views: Sequence[Sequence[int]],
    ):
        # Not those of other processes, which may be busy with other work.
        mesh = device_mesh.make_mesh(jax.local_devices())
        self._by_example = device_mesh.by_example(mesh)
        # One program serves all members. With `vmap`, their kernels would become grouped
        # convolutions, 1.8 times slower on a CPU (`textbook_forms.py` in benchmarks/).
        self._members = [
            device_mesh.place((variables, np.int32(its)), device_mesh.replicated(mesh))
            for variables, its in zip(members, views, strict=True)
        ]
        self._predict = make_predict(model, sharding=self._by_example)
        self._preprocessing = preprocessing
        self._devices = mesh.size
        self._batch_size = -(-batch_size // mesh.size) * mesh.size

    def _input(self, image: np.ndarray, aspect: float) -> np.ndarray:
        return self._preprocessing.to_unit(self._preprocessing.image(image, aspect))

    def probabilities(
        self, slices: Iterable[tuple[np.ndarray, float]]
    ) -> Iterator[np.ndarray]:
        """For each slice, yield the members' probabilities of lung, `[m h w]`.

        While the devices compute a batch, the next one is read and waits for them, and the
        caller works on the results of the one before. Memory holds two batches, whatever
        the number of slices.

        Args:
          slices: images `[h w]` of any sizes, each with the height of its pixels over
            their width.

        Raises:
          UserError: the memory of the device is too small.
        """
        slices = iter(slices)
        started = outputs = None
        try:
            while batch := list(itertools.islice(slices, self._batch_size)):
                outputs = self._start(batch)
                if started:
                    yield from self._results(*started)
                started = [(image.shape, aspect) for image, aspect in batch], outputs
            if started:
                yield from self._results(*started)
        finally:  # after an error, the process may end: not under a running program
            jax.block_until_ready((started, outputs))

    def _start(self, batch: Sequence[tuple[np.ndarray, float]]) -> list[jax.Array]:
        """Let the devices compute a batch, `[b s s]` for each member; do not wait."""
        inputs = [self._input(image, aspect) for image, aspect in batch]
        is_small = len(batch) <= self._devices
        size = self._devices if is_small else self._batch_size
        inputs += [inputs[-1]] * (size - len(batch))
        with memory.reported(LESS_MEMORY):
            placed = device_mesh.place(np.stack(inputs), self._by_example)
            return [
                self._predict(variables, placed, views)
                for variables, views in self._members
            ]

    def _results(
        self,
        slices: Sequence[tuple[tuple[int, int], float]],
        outputs: Sequence[jax.Array],
    ) -> Iterator[np.ndarray]:
        """Wait for a batch, and yield its probabilities at the sizes of its slices."""
        with memory.reported(LESS_MEMORY):
            squares = np.stack([np.asarray(output) for output in outputs])
        for i, (shape, aspect) in enumerate(slices):
            yield np.stack(
                [to_slice(square, shape, aspect) for square in squares[:, i]]
            )


@functools.cache  # one process often makes many predictors of the same model
def make_predict(
    model: Any, *, sharding: jax.sharding.Sharding | None = None
) -> Callable:
    """Compile `predict_views` of a model, with this placement of the probabilities."""
    return jit(functools.partial(predict_views, model.apply), out_shardings=sharding)


def predict_views(
    apply: Callable[..., jax.Array],
    variables: Mapping[str, Any],
    images: jax.Array,
    views: jax.Array,
) -> jax.Array:
    """Return a network's probabilities of lung, `[b h w]`, averaged over views.

    Args:
      apply: of the network.
      variables: of the network.
      images: `[b h w c]`.
      views: `[v]`, some of `views.VIEWS`.
    """

    def see(view):
        logits = apply(variables, mirror(images, view), train=False)
        return mirror(jax.nn.sigmoid(logits), view)

    return jax.lax.map(see, views).mean(0)


def zip_with_predictions(
    predict: Callable[..., Iterator[Any]],
    items: Iterable[Any],
    *,
    slice_of: Callable[[Any], tuple[np.ndarray, float]] = attrgetter("image", "aspect"),
) -> Iterator[tuple[Any, Any]]:
    """Yield each item together with the prediction for its image.

    Args:
      predict: yields predictions in the order of its slices, like
        `EnsemblePredictor.probabilities`; it may consume several slices before it yields
        the first one.
      items: images `[h w]`, or objects that have one.
      slice_of: returns the image of an item, and its aspect.
    """
    pending = deque()  # consumed but not yet predicted

    def slices():
        for item in items:
            pending.append(item)
            yield slice_of(item)

    for prediction in predict(slices()):
        yield pending.popleft(), prediction
