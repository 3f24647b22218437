"""The values of a label, which numbers what each pixel shows."""

from collections.abc import Collection

import numpy as np

from lungseg_jax.runtime.errors import UserError


def select_lung(label: np.ndarray, lung: Collection[int], where: str) -> np.ndarray:
    """Return the lung in a label, as a boolean mask of its shape.

    Args:
      label: whole numbers.
      lung: those that are lung; all but 0 if there are none.
      where: names the label.

    Raises:
      UserError: values are negative or not whole.
    """
    if label.min() < 0 or not np.array_equal(label, np.rint(label)):
        raise UserError(
            f"{where} has values that are negative or not whole.",
            rule="a label numbers what each pixel shows.",
            remedy="name a label, not an image; apply a threshold to probabilities.",
        )
    return np.isin(label, list(lung)) if lung else label != 0
