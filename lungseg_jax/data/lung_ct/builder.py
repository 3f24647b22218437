"""The tfds builder `lung_ct`: CT slices and lung masks as array_record.

It reads and writes without TensorFlow. That is why `file_format` is array_record and the
features are raw tensors: other formats need TensorFlow, and so do NumPy arrays in an Image
feature.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.writer import ExampleWriter

from lungseg_jax.data.io.images import DTYPES
from lungseg_jax.data.pairs import Pair, find_pairs, read_slice

SPLIT = "slices"  # one split: train, validation and test are drawn by name, per run
SLICES_PER_SHARD = 256


@dataclasses.dataclass(kw_only=True)
class LungCTConfig(tfds.core.BuilderConfig):
    """A variant: the dtype of the images, and their side if all are squares of one size."""

    image_dtype: str = "int16"
    side: int | None = None


class LungCT(tfds.core.ShardBasedBuilder):
    """Pairs of equal names from `<manual_dir>/2d_images` and `<manual_dir>/2d_masks`.

    Records are in the order of the sorted names. They are written shard by shard, because
    the shuffler of tfds' other builder needs TensorFlow for more than a gigabyte.
    """

    name = "lung_ct"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Unpack the data so that manual_dir holds 2d_images/ and 2d_masks/ with equal "
        "file names."
    )
    BUILDER_CONFIGS = [
        LungCTConfig(name="kaggle", description="Finding Lungs in CT Data.", side=512),
        LungCTConfig(name="phantom", description="Synthetic slices of the package."),
        *(
            LungCTConfig(
                name=f"folder_{dtype}",
                description=f"Any folder of pairs with {dtype} images.",
                image_dtype=dtype,
            )
            for dtype in DTYPES
        ),
    ]

    written: Sequence[Path] = ()  # the shards, if they exist: they are moved

    def _info(self) -> tfds.core.DatasetInfo:
        info = self.dataset_info_from_configs(
            features=make_features(self.builder_config),
            supervised_keys=("image", "mask"),
            homepage="https://www.kaggle.com/datasets/kmader/finding-lungs-in-ct-data",
            disable_shuffling=True,
        )
        # No bucket has this dataset, and asking leaves an empty folder in TMPDIR.
        info.initialize_from_bucket = _do_nothing
        return info

    def _shard_iterators_per_split(self, dl_manager):
        pairs = find_pairs(Path(dl_manager.manual_dir))
        parts = [
            (pairs[start : start + SLICES_PER_SHARD], start)
            for start in range(0, len(pairs), SLICES_PER_SHARD)
        ]
        if self.written:  # tfds only counts the records
            return {SPLIT: [partial(iter, part) for part, _ in parts]}
        return {SPLIT: [partial(read_records, *part) for part in parts]}

    def _example_writer(self):
        return _Mover(self.written) if self.written else super()._example_writer()


def _do_nothing() -> None:
    pass


class _Mover(ExampleWriter):
    """Moves files to where tfds would write them, in the same order."""

    def __init__(self, files: Sequence[Path]):
        self._files = iter(files)

    def write(self, path, examples) -> None:
        os.replace(next(self._files), path)


def make_features(config: LungCTConfig) -> tfds.features.FeaturesDict:
    """Return what a record of a variant holds."""
    shape = (config.side, config.side, 1)
    tensor = partial(tfds.features.Tensor, shape=shape, encoding="bytes")
    return tfds.features.FeaturesDict(
        {
            "image": tensor(dtype=np.dtype(config.image_dtype)),
            "mask": tensor(dtype=np.uint8),
            "name": tfds.features.Text(),
        }
    )


def read_records(
    pairs: Sequence[Pair], start: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the records of pairs, with their keys, which count from `start`.

    Raises:
      UserError: a file cannot be read.
    """
    for key, pair in enumerate(pairs, start):
        image_slice = read_slice(pair)
        record = {
            "image": image_slice.image[..., None],
            "mask": image_slice.mask[..., None],
            "name": image_slice.name,
        }
        yield key, record
