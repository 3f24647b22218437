"""The tfds builder `lung_ct`: CT slices and lung masks as array_record.

It reads and writes without TensorFlow. That is why `file_format` is array_record and the
features are raw tensors: other formats need TensorFlow, and so do NumPy arrays in an Image
feature.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lungseg_jax.data.pairs import find_pairs, read_slice

SPLIT = "slices"  # one split: train, validation and test are drawn by name, per run
SLICES_PER_SHARD = 256  # tfds holds a shard in memory while it is written


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
        LungCTConfig(name="phantom", description="The embedded synthetic slices."),
        *(
            LungCTConfig(
                name=f"folder_{dtype}",
                description=f"Any folder of pairs with {dtype} images.",
                image_dtype=dtype,
            )
            for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64")
        ),
    ]

    advance: Callable[[], object] | None = None  # called after each slice

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shape = (config.side, config.side, 1)
        tensor = tfds.features.Tensor
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor(
                        shape=shape,
                        dtype=np.dtype(config.image_dtype),
                        encoding="bytes",
                    ),
                    "mask": tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "mask"),
            homepage="https://www.kaggle.com/datasets/kmader/finding-lungs-in-ct-data",
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager):
        pairs = find_pairs(Path(dl_manager.manual_dir))
        starts = range(0, len(pairs), SLICES_PER_SHARD)
        return {
            SPLIT: [
                partial(self._slices, start, pairs[start : start + SLICES_PER_SHARD])
                for start in starts
            ]
        }

    def _slices(self, start: int, pairs):
        for key, pair in enumerate(pairs, start):
            image_slice = read_slice(pair)
            record = {
                "image": image_slice.image[..., None],
                "mask": image_slice.mask[..., None],
                "name": image_slice.name,
            }
            yield key, record
            if self.advance:
                self.advance()
