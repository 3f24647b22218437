"""Changes for the stress benchmark: pure, to scale, and true to their conventions."""

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest
import stress
from stress import anatomy, families, tables
from stress.families import FAMILIES, apply

SIZE = 128
OTHER_SIZE = "pixel size", "crop to the chest", "crop to one lung", "foreign scanner"
SAME_SIZE = [name for name in FAMILIES if name not in OTHER_SIZE]
MASK_STAYS = (
    "in-lung density",
    "offset",
    "gain",
    "noise",
    "blur",
    "sharp kernel",
    "streaks",
    "padding",
    "metal",
    "consolidation",
    "pneumonia",
    "ground glass",
    "nodules at the wall",
    "bullae",
)


def disk(center, radii):
    y, x = np.ogrid[:SIZE, :SIZE]
    return np.hypot((y - center[0]) / radii[0], (x - center[1]) / radii[1]) < 1


@pytest.fixture(scope="module")
def chest():
    """A noisy chest with two lungs and vessels on a couch, padded in the corners."""
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE), -1000.0)
    image[112:116, 20:108] = -100
    image[disk((60, 64), (48, 60))] = 40
    mask = disk((58, 38), (32, 18)) | disk((58, 90), (32, 18))
    image[mask] = -750
    image[disk((60, 40), (4, 4)) | disk((66, 88), (4, 4))] = 30
    image += rng.normal(0, 15, image.shape)
    image[~disk((64, 64), (70, 70))] = -2500
    return image.astype(np.int16), mask


def changed(chest, name, level, seed=0):
    return apply(name, level, *chest, slice_name="a", seed=seed)


CELLS = [(name, level) for name, family in FAMILIES.items() for level in family.levels]


@pytest.mark.parametrize("name,level", CELLS)
def test_changes_are_pure_and_well_formed(chest, name, level):
    before = chest[0].copy(), chest[1].copy()
    image, mask = changed(chest, name, level)
    again, _ = changed(chest, name, level)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(chest[0], before[0])
    np.testing.assert_array_equal(chest[1], before[1])
    assert image.dtype == np.int16 and mask.dtype == bool
    assert image.shape == mask.shape
    assert mask.any() == FAMILIES[name].has_lung
    if name in SAME_SIZE:
        assert image.shape == (SIZE, SIZE)
        is_strongest = level == FAMILIES[name].levels[-1]
        assert not (is_strongest and np.array_equal(image, chest[0]))
    if name in MASK_STAYS:
        np.testing.assert_array_equal(mask, chest[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_are_well_formed(name):
    family = FAMILIES[name]
    assert set(family.moderate) <= set(family.levels) and family.moderate
    assert family.neutral not in family.levels


@pytest.mark.parametrize(
    "name", [n for n, f in FAMILIES.items() if f.neutral is not None]
)
def test_the_neutral_level_changes_nothing(chest, name):
    image, mask = changed(chest, name, FAMILIES[name].neutral)
    np.testing.assert_array_equal(image, chest[0])
    np.testing.assert_array_equal(mask, chest[1])


@pytest.mark.parametrize(
    "name,weak,strong",
    [
        ("noise", 1e-3, 100),
        ("sharp kernel", 1.0001, 3),
        ("streaks", 1e-3, 100),
        ("gain", 1.0001, 1.2),
        ("blur", 0.5, 8),
    ],
)
def test_changes_vanish_with_their_level(chest, name, weak, strong):
    old = chest[0].astype(int)
    faint = abs(changed(chest, name, weak)[0] - old).mean()
    clear = abs(changed(chest, name, strong)[0] - old).mean()
    assert faint < 1 and clear > 10 * max(faint, 0.5)


@pytest.mark.parametrize("name", ["noise", "bullae", "without lung"])
def test_the_seed_and_the_slice_decide_the_random_numbers(chest, name):
    level = FAMILIES[name].levels[0]
    first, _ = changed(chest, name, level)
    other_seed, _ = changed(chest, name, level, seed=1)
    other_slice, _ = apply(name, level, *chest, slice_name="b")
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, other_slice)


def test_resampling_averages_areas_to_scale():
    image, mask = np.full((512, 512), -1000), np.zeros((512, 512), bool)
    image[100:300, 100:300], mask[100:300, 100:300] = 0, True
    coarse, coarse_mask = apply("pixel size", 7, image, mask, slice_name="a")
    assert coarse.shape == (51, 51)  # 358 mm
    assert coarse_mask.sum() == pytest.approx(400, abs=40)
    assert coarse.mean() == pytest.approx(image.mean(), abs=2)
    fine, fine_mask = apply("pixel size", 0.35, image, mask, slice_name="a")
    assert fine.shape == (1024, 1024) and fine_mask.mean() == pytest.approx(mask.mean())


def test_a_small_chest_has_the_scaled_area(chest):
    image, mask = changed(chest, "small chest", 0.5)
    assert mask.sum() == pytest.approx(chest[1].sum() / 4, rel=0.05)
    assert image.min() > -1200  # padding has become air


def test_crops_keep_the_pixels_of_the_lungs(chest):
    image, mask = changed(chest, "crop to the chest", 5)
    np.testing.assert_array_equal(np.sort(image[mask]), np.sort(chest[0][chest[1]]))
    _, one = changed(chest, "crop to one lung", 5)
    assert one.sum() == pytest.approx(chest[1].sum() / 2, rel=0.01)
    assert one.shape[1] < mask.shape[1]


def test_orientations_move_image_and_mask_together(chest):
    for name in ("mirrored", "turned by 90", "turned by 180", "turned by 270"):
        image, mask = changed(chest, "orientation", name)
        np.testing.assert_array_equal(np.sort(image[mask]), np.sort(chest[0][chest[1]]))
    turned, _ = changed(chest, "orientation", "turned by 90")
    np.testing.assert_array_equal(turned, np.rot90(chest[0]))


def test_a_prone_patient_still_has_the_couch_below(chest):
    image, mask = changed(chest, "orientation", "prone")
    assert image[113, 64] > -300  # the couch
    rows = [np.nonzero(m.any(axis=1))[0] for m in (mask, chest[1])]
    down = rows[0][0] - (SIZE - 1 - rows[1][-1])
    np.testing.assert_array_equal(mask, np.roll(np.rot90(chest[1], 2), down, axis=0))


@pytest.mark.parametrize("hu", [-950, -850, -600])
def test_density_moves_the_median_but_not_the_vessels(chest, hu):
    image, mask = changed(chest, "in-lung density", hu)
    assert np.median(image[mask & (chest[0] < -500)]) == pytest.approx(hu, abs=4)
    vessel = disk((60, 40), (3, 3))
    np.testing.assert_array_equal(image[vessel], chest[0][vessel])


def test_scanner_changes_keep_the_padding(chest):
    outside = chest[0] < -1200
    for name in ("gain", "noise", "blur", "sharp kernel", "streaks", "metal"):
        image, _ = changed(chest, name, FAMILIES[name].levels[-1])
        np.testing.assert_array_equal(image[outside], chest[0][outside], err_msg=name)


def test_padding_has_the_value_of_its_name(chest):
    for name in FAMILIES["padding"].levels:
        image, mask = changed(chest, "padding", name)
        assert image[0, 0] == int(name.split(",")[1])
        np.testing.assert_array_equal(image[mask], chest[0][mask])


@pytest.mark.parametrize("name", ["consolidation", "pneumonia"])
def test_consolidated_lung_is_dense_and_still_lung(chest, name):
    shares = []
    for level in FAMILIES[name].levels:
        image, mask = changed(chest, name, level)
        shares.append(((image > -150) & mask).sum() / mask.sum())
    assert shares == sorted(shares) and shares[-1] > 0.4


def test_consolidation_spares_the_other_lung_where_both_touch(chest):
    image, mask = chest[0].copy(), chest[1].copy()
    image[56:60, 30:100], mask[56:60, 30:100] = -750, True
    changed_image, _ = changed((image, mask), "consolidation", 1.0)
    is_dense = (changed_image > -150) & mask
    left, right = is_dense[:, :60].sum(), is_dense[:, 68:].sum()
    assert max(left, right) > 10 * min(left, right)


def test_fluid_is_not_lung(chest):
    image, mask = changed(chest, "effusion", 0.5)
    fluid = chest[1] & ~mask
    assert fluid.sum() > 0.15 * chest[1].sum()
    assert np.median(
        image[cv2.erode(fluid.astype(np.uint8), None) > 0]
    ) == pytest.approx(8, abs=15)
    assert not (mask & ~chest[1]).any()
    assert np.argwhere(fluid)[:, 0].mean() > np.argwhere(mask)[:, 0].mean()  # it is low


def test_a_collapsed_lung_is_smaller_and_the_other_larger(chest):
    _, mask = changed(chest, "collapse", 0.45)
    middle = SIZE // 2
    halves = [
        half[:, :middle].sum() - half[:, middle:].sum() for half in (mask, chest[1])
    ]
    assert abs(halves[0]) > 0.2 * chest[1].sum() > 10 * abs(halves[1])


def test_nodules_and_bullae_are_lung(chest):
    for name, is_new in (
        ("nodules at the wall", lambda hu: hu > -300),
        ("bullae", lambda hu: hu < -920),
    ):
        level = FAMILIES[name].levels[-1]
        image, mask = changed(chest, name, level)
        new = is_new(image) & ~is_new(chest[0])
        assert new.sum() > 0.07 * chest[1].sum()
        assert (new & mask).sum() > 0.97 * new.sum()


def test_slices_without_lung_keep_the_body(chest):
    inside = anatomy.body(chest[0].astype(np.float32), chest[1])
    for name in FAMILIES["without lung"].levels:
        image, mask = changed(chest, "without lung", name)
        assert not mask.any()
        is_air = image < -500
        if name == "couch":
            assert (is_air & inside).sum() > 0.98 * inside.sum()
        else:
            assert (is_air & inside).sum() < 0.5 * chest[1].sum()
            ring = inside & ~(anatomy.depth(inside) > 4)
            np.testing.assert_allclose(image[ring], chest[0][ring], atol=2)
    gas, _ = changed(chest, "without lung", "bowel gas")
    organs, _ = changed(chest, "without lung", "organs")
    assert ((gas < -500) & inside).sum() > ((organs < -500) & inside).sum() + 50


@pytest.mark.parametrize("name", FAMILIES)
def test_a_slice_without_lung_breaks_nothing(chest, name):
    """Also one that holds nothing but air."""
    for image in (chest[0], np.full((SIZE, SIZE), -1000, np.int16)):
        empty = np.zeros((SIZE, SIZE), bool)
        level = FAMILIES[name].levels[-1]
        changed_image, mask = apply(name, level, image, empty, slice_name="a")
        assert changed_image.shape == mask.shape and not mask.any()


def test_the_changes_are_apart_from_training():
    folder = Path(stress.__file__).parent
    for module in ("anatomy", "geometry", "acquisition", "pathology", "absence"):
        imported = imports_of(folder / f"{module}.py")
        assert imported <= {"cv2", "numpy", "scipy", "collections", None}, module
    assert imports_of(Path(families.__file__)) & {"lungseg_jax", "jax"} == set()


def imports_of(file):
    """The top-level packages that a file imports; None for its own."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(None if node.level else node.module.split(".")[0])
    return names


def test_the_table_of_changes_is_up_to_date():
    page = (Path(stress.__file__).parents[1] / "README.md").read_text()
    _, rest = page.split("<!-- family_table: start -->")
    table, _ = rest.split("<!-- family_table: end -->")
    assert table.strip() == tables.family_table(FAMILIES), "print it with family_table"
