"""Contact sheets: labelled slices, side by side."""

from collections.abc import Sequence

import cv2
import numpy as np

from lungseg_jax.inference.overlay import resize_to_fit

MAX_TILES = 16  # slices on a sheet: four rows of four fit on a screen
TILE = 256  # side of a slice, pixels
LABEL = 24  # height of a text on it


class ContactSheet:
    """Labelled slices, side by side: of a volume, or those of a split.

    It shows MAX_TILES of them, evenly spaced.

    Args:
      count: slices that there are.
    """

    def __init__(self, count: int):
        self._shown = set(evenly_spaced(count, MAX_TILES))
        self._columns = int(np.ceil(np.sqrt(len(self._shown))))
        self._rows: list[list[np.ndarray]] = []

    def includes(self, k: int) -> bool:
        """Return whether slice `k` is on the sheet."""
        return k in self._shown

    def add(self, picture: np.ndarray, text: str) -> None:
        """Add the picture of the next slice that the sheet includes."""
        if not self._rows or len(self._rows[-1]) == self._columns:
            self._rows.append([])
        self._rows[-1].append(_tile(picture, text))

    def add_row(self, text: str, pictures: Sequence[np.ndarray]) -> None:
        """Add a row of other pictures, as many as fit; the first is labelled."""
        shown = pictures[: self._columns]
        self._rows.append([_tile(p, "" if i else text) for i, p in enumerate(shown)])

    def picture(self) -> np.ndarray:
        """Return the sheet as a picture `[h w 3]`."""
        rows = []
        for tiles in self._rows:
            height = max(len(tile) for tile in tiles)  # planes of few slices are low
            row = np.zeros((height, self._columns * TILE, 3), np.uint8)
            for i, tile in enumerate(tiles):
                row[: len(tile), i * TILE : (i + 1) * TILE] = tile
            rows.append(row)
        return np.concatenate(rows, axis=0)


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return the indices of at most `most` of `count` slices, with the first and last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def _tile(picture: np.ndarray, text: str) -> np.ndarray:
    """Return the picture, at most `TILE` on a side, in a tile of that width."""
    small = resize_to_fit(picture, TILE)
    tile = np.zeros((max(len(small), LABEL), TILE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(tile, text, (6, 18), font, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
