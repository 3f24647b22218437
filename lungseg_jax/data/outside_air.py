"""Labels that have the air around the body as lung."""

from collections.abc import Mapping

import cv2
import numpy as np

DENSEST_HU = -500  # of air: half-way to soft tissue
# Of a label. Of the 240 Kaggle labels, three have 0.40 to 0.64, and the others none.
MOST_OUTSIDE = 0.1
MOST_AIR_LABELS = 0.05  # of a folder


def outside_air(image: np.ndarray, mask: np.ndarray) -> float:
    """Return which share of a mask is air that reaches the border of the picture.

    It is lung only where the border cuts through a lung: elsewhere, the chest wall is
    between the lungs and the border.

    Args:
      image: `[h w]` in Hounsfield units.
      mask: `[h w]` bool.
    """
    air = np.uint8(image < DENSEST_HU)
    n, component = cv2.connectedComponents(air, connectivity=4)
    is_outside = np.zeros(n, bool)
    for edge in (component[0], component[-1], component[:, 0], component[:, -1]):
        is_outside[edge] = True
    is_outside[0] = False  # what is not air
    return float(is_outside[component[mask]].mean()) if mask.any() else 0.0


def air_labels(shares: Mapping[str, float]) -> list[str]:
    """Return the names of the labels that have the air around the body as lung.

    If there are many, the list is empty: the pictures seem to cut through lungs.

    Args:
      shares: `outside_air` of all labels of a folder, by name.
    """
    names = [name for name, share in shares.items() if share > MOST_OUTSIDE]
    return names if len(names) <= max(1, MOST_AIR_LABELS * len(shares)) else []
