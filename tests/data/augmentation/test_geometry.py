"""One random affine map per example, shared by its image and its mask."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.data.augmentation import draws, geometry
from lungseg_jax.data.augmentation.geometry import random_affine
from lungseg_jax.data.augmentation.transforms import augment

ON = {"zoom": 0.1, "shift": 0.1, "rotation_deg": 5.0, "flip_lr": True, "flip_ud": True}
OFF = {"zoom": 0.0, "shift": 0.0, "rotation_deg": 0.0}
OFF |= {"flip_lr": False, "flip_ud": False}
IDENTITY = jnp.eye(2)
STILL = jnp.zeros(2)


@jax.jit
def warp(plane, matrix, offset):
    positions = geometry.positions(matrix, offset, plane.shape[:2])
    return geometry.sample(plane, *positions)


@functools.cache
def moved_lungs(**options):
    """Two discs in soft tissue, moved by 32 keys: images and masks `[32 64 64]`."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    discs = np.minimum((x - 0.45) ** 2, (x + 0.45) ** 2) + y**2 < 0.3**2
    mask = jnp.asarray(discs, jnp.float32)
    image = jnp.where(mask > 0, -800.0, 40.0)[..., None]
    keys = jax.random.split(jax.random.key(0), 32)
    move = jax.vmap(lambda key: geometry.move(image, mask, key, **options))
    images, masks = jax.jit(move)(keys)
    return np.asarray(images[..., 0]), np.asarray(masks), float(mask.sum())


@functools.cache
def compiled(switches):
    return jax.jit(partial(augment, **dict(switches)))


def run(images, masks, key, **changes):
    """Augment under jit, as the train step does."""
    return compiled(tuple(changes.items()))(images, masks, key)


def examples(n=32, h=5, w=4, c=2):
    """Return images [n h w c] and masks [n h w] that every flip or rotation changes."""
    images = np.random.default_rng(0).random((n, h, w, c)).astype(np.float32)
    return jnp.array(images), jnp.array(images[..., 0] > 0.5, jnp.float32)


def plane(h=4, w=6):
    return jnp.arange(h * w, dtype=jnp.float32).reshape(h, w, 1)


def test_with_everything_off_it_is_the_identity():
    images, masks = examples()
    moved = augment(images, masks, jax.random.key(0))
    np.testing.assert_array_equal(moved[0], images)
    np.testing.assert_array_equal(moved[1], masks)


def test_keeps_shapes_and_dtypes():
    images, masks = examples(n=4, h=10, w=14, c=3)
    shapes = jax.eval_shape(partial(augment, **ON), images, masks, jax.random.key(0))
    assert [(s.shape, s.dtype) for s in shapes] == [
        ((4, 10, 14, 3), jnp.float32),
        ((4, 10, 14), jnp.float32),
    ]


def test_image_and_mask_move_together():
    """A mask, and its complement, as image channels are transformed like the mask."""
    _, masks = examples()
    images = jnp.stack([masks, 1 - masks], axis=-1)
    moved_images, moved_masks = run(images, masks, jax.random.key(1), **ON)
    np.testing.assert_array_equal(moved_images[..., 0], moved_masks)
    np.testing.assert_allclose(moved_images[..., 1], 1 - moved_masks, atol=1e-5)
    assert (np.abs(moved_masks - masks).max(axis=(1, 2)) > 0.01).all()


def test_is_a_function_of_the_key():
    images, masks = examples()
    first = run(images, masks, jax.random.key(5), **ON)
    again = run(images, masks, jax.random.key(5), **ON)
    other = run(images, masks, jax.random.key(6), **ON)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - c).max() > 0.1


def test_each_example_has_its_own_map():
    images, masks = (jnp.repeat(a, 32, axis=0) for a in examples(n=1))
    moved, _ = run(images, masks, jax.random.key(0), **ON)
    assert len({np.asarray(image).tobytes() for image in moved}) == 32


@pytest.mark.parametrize(
    "switches,expected",
    [
        ({"flip_lr": True}, {(1, 1), (1, -1)}),
        ({"flip_ud": True}, {(1, 1), (-1, 1)}),
        (
            {"flip_lr": True, "flip_ud": True},
            {(1, 1), (1, -1), (-1, 1), (-1, -1)},
        ),
    ],
)
def test_flips_are_exact_and_all_occur(switches, expected):
    images, masks = examples()
    moved_images, moved_masks = run(images, masks, jax.random.key(0), **switches)
    flips = set()
    for i in range(32):
        for down, across in expected:
            image, mask = images[i, ::down, ::across], masks[i, ::down, ::across]
            if np.allclose(moved_images[i], image, atol=1e-5):
                np.testing.assert_allclose(moved_masks[i], mask, atol=1e-5)
                flips.add((down, across))
                break
        else:
            raise AssertionError(f"example {i} is none of the flips {expected}")
    assert flips == expected


@pytest.mark.parametrize("option", ON)
def test_each_option_changes_something(option):
    images, masks = examples()
    moved, moved_masks = run(images, masks, jax.random.key(0), **{option: ON[option]})
    assert np.abs(moved - images).max() > 0.1
    assert np.abs(moved_masks - masks).max() > 0.1


def test_the_identity_map_is_exact():
    for h, w in ((4, 6), (7, 5)):
        same = warp(plane(h, w), IDENTITY, STILL)
        np.testing.assert_allclose(same, plane(h, w), atol=1e-5)


@pytest.mark.parametrize(
    "rows,columns,expected",
    [
        # 4 rows are 2 units high: an offset of 1/2 reads one row further down, and
        # repeats the last row.
        (0.5, 0.0, [[6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17]]),
        (-0.5, 0.0, [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]),
        # 6 columns: 2/3 reads two columns to the right.
        (0.0, 2 / 3, [[2, 3, 4, 5, 5, 5], [8, 9, 10, 11, 11, 11]]),
        # 1/6 is half a column: the mean of two neighbors.
        (0.0, 1 / 6, [[0.5, 1.5, 2.5, 3.5, 4.5, 5], [6.5, 7.5, 8.5, 9.5, 10.5, 11]]),
        # Both at once.
        (0.5, -1 / 3, [[6, 6, 7, 8, 9, 10], [12, 12, 13, 14, 15, 16]]),
    ],
)
def test_shifts_match_hand_computed_values(rows, columns, expected):
    moved = warp(plane(), IDENTITY, jnp.array([rows, columns]))
    np.testing.assert_allclose(moved[:2, :, 0], expected, atol=1e-4)


def test_pixels_from_outside_repeat_the_nearest():
    """Far beyond a corner, every pixel is that corner."""
    for rows, columns, corner in ((9, 9, 23), (-9, -9, 0), (-9, 9, 5), (9, -9, 18)):
        moved = warp(plane(), IDENTITY, jnp.array([rows, columns], jnp.float32))
        np.testing.assert_allclose(moved, corner)


def test_rotation_by_90_degrees_is_exact():
    """Output (row, column) reads input (-column, row): numpy's rot90, clockwise."""
    square = plane(5, 5)
    turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    turned = warp(square, turn, STILL)[..., 0]
    np.testing.assert_allclose(turned[0], [20, 15, 10, 5, 0], atol=1e-5)
    np.testing.assert_allclose(turned, np.rot90(square[..., 0], -1), atol=1e-5)


def test_zoom_matches_hand_computed_values():
    """Sampling at half the scale enlarges the middle twofold: rows 0.75 to 2.25."""
    ramp = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], (4, 4, 1))
    moved = warp(ramp, jnp.diag(jnp.array([0.5, 1.0])), STILL)
    np.testing.assert_allclose(moved[:, 0, 0], [0.75, 1.25, 1.75, 2.25], atol=1e-5)


@jax.jit
def draw(keys, switches):
    return jax.vmap(lambda key: random_affine(key, **OFF | switches))(keys)


def affines(**changes):
    """Draw matrices [400 2 2] and offsets [400 2]."""
    matrices, offsets = draw(jax.random.split(jax.random.key(0), 400), changes)
    return np.asarray(matrices), np.asarray(offsets)


def test_zoom_is_per_axis_and_within_its_range():
    matrices, offsets = affines(zoom=0.25)
    factors = (
        1 / matrices[:, [0, 1], [0, 1]]
    )  # an image twice as large is sampled at half the scale
    assert factors.min() >= 0.75 - 1e-5 and factors.max() <= 1.25 + 1e-5
    assert (factors.min(0) < 0.77).all() and (factors.max(0) > 1.23).all()
    assert abs(np.corrcoef(factors.T)[0, 1]) < 0.2  # not one factor for both
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0, atol=1e-6)
    np.testing.assert_array_equal(offsets, 0)


def test_shift_is_per_axis_and_within_its_range():
    """The unit is half a side, so a tenth of an axis is 0.2."""
    matrices, offsets = affines(shift=0.1)
    assert np.abs(offsets).max() <= 0.2
    assert (offsets.min(0) < -0.19).all() and (offsets.max(0) > 0.19).all()
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.2
    np.testing.assert_allclose(matrices, np.tile(np.eye(2), (400, 1, 1)), atol=1e-6)


def test_rotation_is_rigid_and_within_its_range():
    matrices, offsets = affines(rotation_deg=20.0)
    angles = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert np.abs(angles).max() <= 20 + 1e-3
    assert angles.min() < -19 and angles.max() > 19
    products = np.einsum("nij,nkj->nik", matrices, matrices)
    np.testing.assert_allclose(products, np.tile(np.eye(2), (400, 1, 1)), atol=1e-5)
    np.testing.assert_array_equal(offsets, 0)


@pytest.mark.parametrize("switch,axis", [("flip_ud", 0), ("flip_lr", 1)])
def test_half_of_the_examples_are_mirrored(switch, axis):
    matrices, _ = affines(**{switch: True})
    assert set(matrices[:, axis, axis]) == {-1.0, 1.0}
    assert 0.4 < (matrices[:, axis, axis] < 0).mean() < 0.6
    np.testing.assert_array_equal(matrices[:, 1 - axis, 1 - axis], 1.0)


@pytest.mark.parametrize("first,second", [("zoom", "shift"), ("zoom", "flip_lr")])
def test_draws_do_not_depend_on_each_other(first, second):
    """An option changes only its own draw, so recipes stay comparable."""
    single, _ = affines(**{first: ON[first]})
    both, _ = affines(**{first: ON[first], second: ON[second]})
    np.testing.assert_allclose(np.abs(both), np.abs(single), atol=1e-6)


def test_a_scale_is_independent_of_the_shift_and_the_zoom():
    """Keys of a split and of a fold_in may be the same."""
    keys = jax.random.split(jax.random.key(0), 2000)

    def numbers(key):
        scale = draws.draw(jax.random.fold_in(key, draws.APART), 10)
        matrix, offset = random_affine(key, **ON)
        return jnp.stack([*scale, *offset, *matrix.ravel()])

    correlation = np.abs(np.corrcoef(jax.jit(jax.vmap(numbers))(keys).T))
    assert correlation[:10, 10:].max() < 0.1


def test_scale_is_within_its_range_and_shows_air_outside():
    images, masks, area = moved_lungs(scale=1.5)
    areas = masks.sum((1, 2)) / area
    # Magnified discs reach beyond the border, so only the lower limit is exact.
    assert 1 / 1.5**2 - 0.03 < areas.min() < 0.6 and areas.max() > 1.3
    shrunken = areas < 0.6
    corners = images[shrunken][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_array_equal(corners, -1000.0)
    np.testing.assert_array_equal(masks[shrunken][:, 0], 0.0)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_a_scale_of_one_or_less_is_off(scale):
    image, mask = jnp.ones((8, 8, 1)), jnp.ones((8, 8))
    moved = geometry.move(image, mask, jax.random.key(0), scale=scale)
    assert (moved[0] == 1).all() and (moved[1] == 1).all()


def test_a_crop_is_tight_around_both_lungs_or_one():
    _, masks, area = moved_lungs(crop=1.0)
    share = masks.mean((1, 2))
    assert share.min() > 0.08 and share.mean() > 0.25  # 0.14 before
    assert (share > 0.45).mean() > 0.3  # one disc fills the image


def test_a_crop_leaves_an_image_without_lung():
    mask = jnp.zeros((16, 16))
    image = jnp.arange(256.0).reshape(16, 16, 1)
    same, _ = geometry.move(image, mask, jax.random.key(0), crop=1.0)
    np.testing.assert_allclose(same, image, atol=1e-3)


def test_one_lung_is_a_half_of_the_mask():
    mask = np.zeros((8, 10), np.float32)
    mask[2:6, 1:4] = mask[3:5, 7:9] = 1
    left, right = (geometry.one_lung(mask, side) for side in (0.2, 0.8))
    np.testing.assert_array_equal(left, mask * (np.arange(10) < 5))
    np.testing.assert_array_equal(right, mask * (np.arange(10) >= 5))


def test_a_collapsed_lung_is_smaller_and_the_other_one_is_not():
    _, masks, area = moved_lungs(collapse=1.0)
    halves = np.stack([masks[:, :, :32].sum((1, 2)), masks[:, :, 32:].sum((1, 2))])
    smaller, larger = np.sort(2 * halves / area, axis=0)
    assert (smaller < 0.95).all() and (smaller > 0.2).all()
    np.testing.assert_allclose(larger, 1.0, atol=0.06)
    assert set(halves.argmin(axis=0)) == {0, 1}


def test_a_collapse_pulls_air_in_where_the_picture_ends():
    """With a scale, as elsewhere: the lung is not drawn out."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    mask = jnp.asarray((np.abs(x - 0.5) < 0.4) & (np.abs(y) < 2), jnp.float32)
    image = jnp.where(mask > 0, -800.0, 40.0)[..., None]
    moved = jax.jit(partial(geometry.move, image, mask, scale=1.0001, collapse=1.0))
    for seed in range(8):
        changed, left = (np.asarray(a) for a in moved(jax.random.key(seed)))
        outside = changed[..., 0] == -1000
        assert (left[outside] == 0).all() and outside[[0, -1]].any()


def test_some_images_are_turned_by_any_angle():
    _, masks, _ = moved_lungs(turn=0.5)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    spread = [((m * y**2).sum() / (m * x**2).sum()) for m in masks]
    upright = np.isclose(spread, min(spread), rtol=0.05)
    assert 0.3 < upright.mean() < 0.8  # some are turned by little
    assert max(spread) > 2  # one above the other


def test_a_turn_changes_neither_sizes_nor_angles():
    for angle in (0.1, 0.4, 0.7):
        numbers = np.float32([0, angle])
        matrix = np.asarray(geometry._random_turn(IDENTITY, numbers, 1.0))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-6)


def test_coordinates_are_exact_at_512():
    """Multiplications of elements: the position of a pixel is right to 1/1000 pixel."""
    rows, columns = geometry.positions(IDENTITY, STILL, (512, 512))
    wanted = np.broadcast_to(np.arange(512)[:, None], (512, 512))
    np.testing.assert_allclose(((rows + 1) * 512 - 1) / 2, wanted, atol=1e-3)
    np.testing.assert_allclose(((columns + 1) * 512 - 1) / 2, wanted.T, atol=1e-3)
