"""The tfds dataset `lung_ct`."""

from lungseg_jax.datasets.lung_ct.lung_ct import LungCT, LungCTConfig

__all__ = ["LungCT", "LungCTConfig"]
