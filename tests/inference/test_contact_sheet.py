"""Contact sheets."""

import numpy as np

from lungseg_jax.inference.contact_sheet import LABEL, MAX_TILES, TILE, ContactSheet


def test_contact_sheet_shows_evenly_spaced_slices_in_order():
    sheet = ContactSheet(100)
    shown = [k for k in range(100) if sheet.includes(k)]
    assert len(shown) == MAX_TILES == 16 and shown[0] == 0 and shown[-1] == 99
    for i in range(len(shown)):
        sheet.add(np.full((50, 40, 3), 15 * i, np.uint8), "")
    picture = sheet.picture()
    assert picture.shape == (4 * TILE, 4 * TILE, 3)
    corners = picture[TILE - 2 :: TILE, 2::TILE, 0].ravel()
    assert corners.tolist() == [15 * i for i in range(16)]


def test_contact_sheet_of_a_small_volume_shows_all_slices():
    sheet = ContactSheet(2)
    assert sheet.includes(0) and sheet.includes(1)
    for k in range(2):
        sheet.add(np.zeros((8, 300, 3), np.uint8), f"{k}" + k * " review")
    assert sheet.picture().shape == (LABEL, 2 * TILE, 3)  # of 7 rows, and a label
    assert sheet.picture()[:, TILE:].sum() > sheet.picture()[:, :TILE].sum()
