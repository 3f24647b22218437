"""Pictures of masks: what is drawn where."""

import cv2
import numpy as np

from lungseg_jax.inference.overlay import (
    MISSED,
    OUTLINE,
    UNCERTAIN,
    encode_jpeg,
    error_overlay,
    gray,
    overlay,
    resize_to_fit,
)

WINDOW = {"window_hu": (-1000.0, 400.0)}


def test_overlay_draws_gray_outline_and_uncertainty():
    image = np.full((20, 20), -300, np.int16)
    image[0, 0], image[0, 1] = -2000, 3000
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    uncertainty = np.zeros((20, 20), np.float32)
    uncertainty[18, 18] = 1.0
    picture = overlay(image, mask, uncertainty, **WINDOW)
    assert picture.shape == (20, 20, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[0, 1].tolist() == [255] * 3
    assert picture[10, 10].tolist() == picture[2, 2].tolist() == [127] * 3
    assert picture[5, 5:15].tolist() == [list(OUTLINE)] * 10
    red = 0.3 * 127.5 + 0.7 * np.array(UNCERTAIN)
    np.testing.assert_allclose(picture[18, 18], red, atol=1)


def test_false_positives_and_missed_lung_have_their_own_colors():
    image = np.full((20, 20), -300, np.int16)
    mask, truth = np.zeros((2, 20, 20), bool)
    mask[5:15, 2:12], truth[5:15, 6:18] = True, True
    picture = error_overlay(image, mask, truth, **WINDOW)
    plain = gray(image, **WINDOW)[0, 0]
    for where, color in (((10, 4), OUTLINE), ((10, 15), MISSED)):
        expected = 0.25 * plain + 0.75 * np.array(color)
        np.testing.assert_allclose(picture[where], expected, atol=1)
    assert picture[10, 8].tolist() == picture[2, 2].tolist() == [plain] * 3


def test_resize_to_fit_accepts_any_shape():
    for shape in ((40, 80), (80, 40, 3), (1, 999), (512, 512)):
        fitted = resize_to_fit(np.zeros(shape, np.uint8), 64)
        assert max(fitted.shape[:2]) == 64 and fitted.ndim == len(shape)


def test_an_empty_mask_has_no_outline():
    image, mask = np.zeros((9, 9), np.int16), np.zeros((9, 9), bool)
    picture = overlay(image, mask, np.zeros((9, 9), np.float32), **WINDOW)
    assert (np.ptp(picture, axis=-1) == 0).all()


def test_jpeg_keeps_thin_outlines():
    image, mask = np.full((64, 64), -300, np.int16), np.zeros((64, 64), bool)
    mask[10:50, 10:50] = True
    picture = overlay(image, mask, np.zeros((64, 64), np.float32), **WINDOW)
    content = np.frombuffer(encode_jpeg(picture), np.uint8)
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)
    assert decoded.shape == picture.shape
    np.testing.assert_allclose(decoded[10, 20:40].mean(axis=0), OUTLINE, atol=20)
