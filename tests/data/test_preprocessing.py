"""Slices to network inputs and back, against hand-computed values."""

import json

import numpy as np
import pytest

from lungseg_jax.data.preprocessing import CHANNELS, Preprocessing, to_slice

CT = (-1000.0, 400.0)
AXIS = [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16]  # OpenCV's 5-tap Gaussian


def test_window_matches_hand_computed_values():
    """-1000..400 HU map to 0..1: 1400 HU are one unit; padding and bone are clipped."""
    image = np.array(
        [
            [-2600, -1001, -1000, -999],
            [-650, -300, 0, 50],
            [399, 400, 401, 3000],
            [-930, -860, -720, -440],
        ],
        np.int16,
    )
    expected = [
        [0, 0, 0, 1 / 1400],
        [350 / 1400, 700 / 1400, 1000 / 1400, 1050 / 1400],
        [1399 / 1400, 1, 1, 1],
        [0.05, 0.1, 0.2, 0.4],
    ]
    result = Preprocessing("window", 4, CT).image(image)
    assert result.dtype == np.float32 and result.shape == (4, 4, 1)
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-6)


def test_hounsfield_units_are_kept_and_windowed_later():
    """70 HU below and 700 above the window are kept; then it is that of `window`."""
    image = np.array([[-2600, -1030, -1000, 0], [50, 400, 900, 3000]] * 2, np.int16)
    hu, window = (Preprocessing(kind, 4, CT) for kind in ("hu", "window"))
    kept = hu.image(image)
    assert kept.dtype == np.int16 and kept.shape == (4, 4, 1)
    expected = [[-1070, -1030, -1000, 0], [50, 400, 900, 1100]] * 2
    np.testing.assert_array_equal(kept[..., 0], expected)
    windowed = window.image(image)
    np.testing.assert_allclose(hu.to_unit(kept), windowed, atol=1e-6)
    np.testing.assert_array_equal(window.to_unit(windowed), windowed)


@pytest.mark.parametrize("window", [(0.0, 255.0), (0.0, 1.0), (0.0, 5e4)])
def test_other_values_are_kept_as_if_they_were_hounsfield_units(window):
    """The window becomes -1000..400 HU; 8-bit values survive the rounding."""
    low, high = window
    image = (low + (high - low) * np.arange(256).reshape(16, 16) / 255).astype("f4")
    preprocessing = Preprocessing("hu", 16, window)
    kept = preprocessing.image(image)
    assert (kept.min(), kept.max()) == (-1000, 400)
    assert len(np.unique(kept)) == 256
    unit = preprocessing.to_unit(kept)[..., 0]
    np.testing.assert_allclose(unit, np.arange(256).reshape(16, 16) / 255, atol=4e-4)


@pytest.mark.parametrize("low,high", [(-2e4, 2e4), (-1.5e4, 1.5e4), (-1000.0, 2e4)])
def test_pixels_beyond_a_wide_window_do_not_wrap_around(low, high):
    """Half a window above it may be more than int16 holds."""
    preprocessing = Preprocessing("hu", 2, (low, high))
    image = np.array([[low - 9e4, low], [high, high + 9e4]], np.float32)
    kept = preprocessing.image(image)
    assert (np.diff(kept.astype(int).ravel()) > 0).all()
    unit = preprocessing.to_unit(kept)[..., 0]
    np.testing.assert_allclose(unit, [[0, 0], [1, 1]], atol=1e-6)


def test_a_slice_that_is_not_square_is_padded_with_air():
    kept = Preprocessing("hu", 4, CT).image(np.full((2, 4), 40, np.int16))
    np.testing.assert_array_equal(kept[[0, 3]], -1000)
    np.testing.assert_array_equal(kept[1:3], 40)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_window_accepts_any_dtype(dtype):
    """A window of 50..150 on 0, 100, 200: unsigned pixels must not wrap around."""
    image = np.array([[0, 100], [200, 50]], dtype)
    result = Preprocessing("window", 2, (50.0, 150.0)).image(image)
    np.testing.assert_allclose(result[..., 0], [[0, 0.5], [1, 0]])


def test_downscaling_averages_areas():
    """4x4 to 2x2 with a window of 0..100: means of the blocks, after clipping."""
    image = np.array(
        [[0, 20, 100, 100], [40, 60, 100, 9999], [0, 0, 7, 9], [0, 0, 1, 3]], np.int16
    )
    result = Preprocessing("window", 2, (0.0, 100.0)).image(image)
    np.testing.assert_allclose(result[..., 0], [[0.3, 1.0], [0.0, 0.05]], atol=1e-6)


def test_masks_match_hand_computed_values():
    """The fraction of lung in each 2x2 block; a hard mask is 1 from a half up."""
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    preprocessing = Preprocessing("window", 2, CT)
    soft = preprocessing.mask(mask, soft=True)
    hard = preprocessing.mask(mask, soft=False)
    assert soft.dtype == hard.dtype == np.float32
    np.testing.assert_allclose(soft, [[0.25, 0.75], [0.5, 0.0]])
    np.testing.assert_array_equal(hard, [[0, 1], [1, 0]])


def test_every_pixel_counts_when_shrinking_by_three():
    """6x6 to 2x2, each block with a 0 at its centre, all that bilinear sampling reads."""
    mask = np.ones((6, 6), np.uint8)
    mask[1::3, 1::3] = 0
    mask[:3, :3] = 1 - mask[:3, :3]
    soft = Preprocessing("window", 2, CT).mask(mask, soft=True)
    np.testing.assert_allclose(soft, [[1 / 9, 8 / 9], [8 / 9, 8 / 9]], atol=1e-6)


def test_same_size_changes_nothing():
    mask = np.eye(5, dtype=np.uint8)
    same = Preprocessing("window", 5, CT).mask(mask, soft=True)
    np.testing.assert_array_equal(same, mask)
    values = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    np.testing.assert_array_equal(to_slice(values, (5, 5)), values)


@pytest.mark.parametrize(
    "shape,rows,columns",
    [
        ((4, 8), slice(2, 6), slice(0, 8)),  # 4 rows in the middle of 8
        ((8, 4), slice(0, 8), slice(2, 6)),
        ((16, 8), slice(0, 8), slice(2, 6)),  # shrunk by two
        ((2, 4), slice(2, 6), slice(0, 8)),  # enlarged by two
        ((5, 8), slice(1, 6), slice(0, 8)),  # three rows are left: one above, two below
        ((100, 1), slice(0, 8), slice(3, 4)),  # a line is at least a pixel wide
    ],
)
def test_slices_are_centred_in_the_square(shape, rows, columns):
    preprocessing = Preprocessing("window", 8, CT)
    square = preprocessing.mask(np.ones(shape, np.uint8), soft=True)
    expected = np.zeros((8, 8))
    expected[rows, columns] = 1
    np.testing.assert_allclose(square, expected, atol=1e-6)
    image = preprocessing.image(np.full(shape, 400, np.int16))
    np.testing.assert_allclose(image[..., 0], expected, atol=1e-6)


def test_pixels_that_are_not_square_are_stretched():
    """Two rows of pixels twice as high as wide fill a square, and one row is a half."""
    rows = np.array([[-1000] * 4, [400] * 4], np.int16)
    window = Preprocessing("window", 4, CT)
    square = window.image(rows, aspect=2.0)[..., 0]
    np.testing.assert_allclose(square[[0, 3]], [[0] * 4, [1] * 4])
    np.testing.assert_allclose(
        to_slice(square, (2, 4), aspect=2.0)[:, 0], [0.125, 0.875]
    )
    wide = window.image(rows, aspect=0.5)[..., 0]
    np.testing.assert_allclose(wide[:, 0] > 0, [False, True, False, False])
    tall = window.image(rows.T, aspect=0.5)[..., 0]
    np.testing.assert_allclose(tall, square.T)


def test_to_slice_reads_the_middle_of_the_square():
    """A slice of (2, 4) is rows 1 and 2 of a square of 4; the others are ignored."""
    square = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_allclose(to_slice(square, (2, 4)), square[1:3])
    # Doubled: bilinear, at a quarter and three quarters between the centres.
    wide = to_slice(square, (8, 8))
    np.testing.assert_allclose(wide[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(wide[:, 0], [0, 1, 3, 5, 7, 9, 11, 12])


@pytest.mark.parametrize("shape", [(512, 512), (300, 500), (37, 90), (512, 200)])
@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("kind", CHANNELS)
def test_to_slice_inverts_the_placement(shape, size, kind):
    """An off-centre rectangle returns to its original position."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    mask[height // 8 : height * 2 // 3, width // 5 : width * 9 // 10] = 1
    square = Preprocessing(kind, size, CT).mask(mask, soft=True)
    assert square.shape == (size, size)
    back = to_slice(square, shape)
    assert back.shape == shape and back.dtype == np.float32
    both = ((back > 0.5) & (mask > 0)).sum()
    either = ((back > 0.5) | (mask > 0)).sum()
    assert both / either > 0.97


@pytest.mark.parametrize(
    "hu,byte",
    [
        (-1000, 252),  # 0xFC18
        (-700, 253),  # 0xFD44
        (-1, 255),
        (0, 0),
        (255, 0),
        (256, 1),
        (300, 1),  # 0x012C
        (-2600, 245),  # 0xF5D8
    ],
)
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_seed_keeps_the_high_byte(hu, byte, dtype):
    image = np.full((8, 8), hu, dtype)  # a blur of equal pixels changes nothing
    result = Preprocessing("seed", 8, CT).image(image)
    assert result.dtype == np.float32 and result.shape == (8, 8, 3)
    np.testing.assert_allclose(result, byte / 255, atol=1e-6)


def test_seed_keeps_8_bit_images():
    image = np.full((8, 8), 77, np.uint8)
    result = Preprocessing("seed", 8, CT).image(image)
    np.testing.assert_allclose(result, 77 / 255, atol=1e-6)


def test_seed_blurs_and_repeats_three_channels():
    """One pixel of 255 (HU -1) becomes a Gaussian, rounded to integers."""
    image = np.zeros((9, 9), np.int16)
    image[4, 4] = -1
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 255 * np.outer(AXIS, AXIS)
    result = Preprocessing("seed", 9, CT).image(image)
    for channel in range(3):
        np.testing.assert_allclose(result[..., channel] * 255, expected, atol=0.51)
    np.testing.assert_allclose(result * 255, np.round(result * 255), atol=1e-4)


def test_seed_blurs_the_mask():
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 1
    seed, window = (Preprocessing(kind, 9, CT) for kind in ("seed", "window"))
    blurred = seed.soften(mask)
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(
        blurred[2:7, 2:7] * 255, 255 * np.outer(AXIS, AXIS), atol=0.51
    )
    full = seed.soften(np.ones((9, 9), np.uint8))
    np.testing.assert_array_equal(full, 1.0)
    np.testing.assert_array_equal(window.soften(mask), mask)


def test_true_mask_is_thresholded_like_the_prediction():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, 4:] = 1
    seed, window = (Preprocessing(kind, 9, CT) for kind in ("seed", "window"))
    windowed = window.true_mask(mask, threshold=0.9)
    np.testing.assert_array_equal(windowed, mask > 0)
    # Under seed the edge is blurred, and thresholded like the prediction.
    soft = seed.soften(mask)
    for threshold in (0.2, 0.784):
        cut = seed.true_mask(mask, threshold=threshold)
        np.testing.assert_array_equal(cut, soft > threshold)
    assert cut.sum() < windowed.sum()


@pytest.mark.parametrize("kind,channels", [("hu", 1), ("window", 1), ("seed", 3)])
def test_json_returns_an_equal_object_with_the_keys_of_bundles(kind, channels):
    """Equal objects have equal hashes: programs that close over them can be shared."""
    preprocessing = Preprocessing(kind, 256, CT)
    text = json.dumps(preprocessing.to_json())
    expected = f'"preprocessing": "{kind}", "image_size": 256'
    assert text == f'{{{expected}, "window_hu": [-1000.0, 400.0]}}'
    read = Preprocessing.from_json(json.loads(text))
    assert read == preprocessing and hash(read) == hash(preprocessing)
    assert read.channels == channels
