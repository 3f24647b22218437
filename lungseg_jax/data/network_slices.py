"""Slices of one or more datasets as network arrays, converted when they are read."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.packed_masks import pack_mask, packed_dtype
from lungseg_jax.data.preprocessing import Preprocessing


class NetworkSlices(Sequence[Mapping[str, np.ndarray]]):
    """A sequence of `{"image": [s s c], "mask": [s s]}`, as they are kept on devices.

    Nothing is kept in memory: an item is read and converted whenever it is asked for, which
    threads may do at the same time.

    Attributes:
      names: of the slices.
      shapes: the shapes of both arrays of an item.
      dtypes: their dtypes; masks are packed (`packed_masks`) if that is exact for all.
    """

    def __init__(
        self,
        parts: Iterable[tuple[Dataset, Sequence[str], Preprocessing]],
        *,
        soft_masks: bool,
    ):
        """Create a sequence of slices by name, one dataset after the other.

        Args:
          parts: datasets, each with the names of its slices and their preprocessing, which
            differ in no more than the window.
          soft_masks: whether masks hold shares of lung; see `Preprocessing.mask`.
        """
        parts = list(parts)
        self._sources = [
            (data, name, own) for data, names, own in parts for name in names
        ]
        self._soft = soft_masks
        preprocessing = parts[0][2]
        self.names = [name for _, name, _ in self._sources]
        square = preprocessing.image_size, preprocessing.image_size
        self.shapes = {"image": (*square, preprocessing.channels), "mask": square}
        shapes = itertools.chain(*(data.shapes(names) for data, names, _ in parts))
        self.dtypes = {
            "image": preprocessing.image_dtype,
            "mask": packed_dtype(shapes, preprocessing, soft_masks=soft_masks),
        }

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Read and convert a slice.

        Raises:
          UserError: see `Dataset.read`.
        """
        dataset, name, preprocessing = self._sources[i]
        image_slice = dataset.read(name)
        aspect = image_slice.aspect
        image = preprocessing.image(image_slice.image, aspect)
        mask = preprocessing.mask(image_slice.mask, soft=self._soft, aspect=aspect)
        return {"image": image, "mask": pack_mask(mask, self.dtypes["mask"])}

    @property
    def slice_bytes(self) -> int:
        """The memory of one item."""
        return sum(
            math.prod(shape) * self.dtypes[name].itemsize
            for name, shape in self.shapes.items()
        )

    def image_batches(
        self, batches: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the images `[b s s c]` of each batch, and its row numbers `[1 b]`."""
        for batch in batches:
            rows = np.arange(len(batch), dtype=np.int32)
            yield self.stack(batch)["image"], rows[None]

    def stack(self, indices: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Return the items at `indices`, by default all, `[n s s c]` and `[n s s]`."""
        indices = range(len(self)) if indices is None else indices
        arrays = {
            name: np.empty((len(indices), *shape), self.dtypes[name])
            for name, shape in self.shapes.items()
        }
        for row, i in enumerate(indices):
            for name, array in self[i].items():
                arrays[name][row] = array
        return arrays
