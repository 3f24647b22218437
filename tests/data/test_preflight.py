"""Every file is checked once, and all faults are reported in one error."""

import hashlib
import json
import os

import cv2
import numpy as np
import pytest

from lungseg_jax.data import preflight
from lungseg_jax.data.io import formats
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.pairs import find_pairs
from lungseg_jax.data.preflight import check_folder, fingerprint_of
from lungseg_jax.data.splits import check_split, split_names
from lungseg_jax.runtime.errors import UserError


def fingerprint(folder):
    return check_folder(folder).fingerprint


def image(folder, name):
    return folder / "2d_images" / f"{name}.tif"


def mask(folder, name):
    return folder / "2d_masks" / f"{name}.tif"


def test_digests_are_sha256_by_relative_path(pair_folder):
    folder = pair_folder(["a", "b"])
    digests = check_folder(folder).digests
    assert list(digests) == [
        "2d_images/a.tif",
        "2d_masks/a.tif",
        "2d_images/b.tif",
        "2d_masks/b.tif",
    ]
    for path, digest in digests.items():
        assert digest == hashlib.sha256((folder / path).read_bytes()).hexdigest()


def test_fingerprint_is_a_digest_of_the_digests():
    rows = {"2d_masks/a.tif": "22", "2d_images/a.tif": "11"}
    text = b"2d_images/a.tif 11\n2d_masks/a.tif 22"
    assert fingerprint_of(rows) == hashlib.sha256(text).hexdigest()[:16]


def test_fingerprint_ignores_the_folder_and_modification_times(pair_folder):
    here, there = pair_folder(["a", "b"]), pair_folder(["a", "b"], folder="elsewhere")
    for path in there.rglob("*.tif"):
        os.utime(path, (1, 1))
    assert fingerprint(here) == fingerprint(there)


def flip_a_bit(folder):
    path = folder / "2d_images" / "b.tif"
    content = bytearray(path.read_bytes())
    content[8] ^= 1  # the first pixel
    path.write_bytes(content)


def rename_a_pair(folder):
    for kind in ("2d_images", "2d_masks"):
        (folder / kind / "b.tif").rename(folder / kind / "c.tif")


def swap_two_images(folder):
    """Exchange two images, which keeps all names and contents."""
    a, b = (folder / "2d_images" / name for name in ("a.tif", "b.tif"))
    contents = a.read_bytes(), b.read_bytes()
    b.write_bytes(contents[0])
    a.write_bytes(contents[1])


def remove_a_pair(folder):
    for kind in ("2d_images", "2d_masks"):
        (folder / kind / "b.tif").unlink()


@pytest.mark.parametrize(
    "change", [flip_a_bit, rename_a_pair, swap_two_images, remove_a_pair]
)
def test_fingerprint_changes_with_content_and_names(pair_folder, change):
    folder = pair_folder(["a", "b"])
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("dtype,suffix", [("int16", ".tif"), ("uint8", ".png")])
@pytest.mark.parametrize("size", [40, 24])
def test_describes_each_slice(pair_folder, dtype, suffix, size):
    folder = pair_folder(["a", "b"], dtype=dtype, suffix=suffix, size=size)
    checked = check_folder(folder)
    assert (checked.dtype, checked.shape) == (dtype, (size, size))
    assert checked.pairs == find_pairs(folder)
    for pair, info in zip(checked.pairs, checked.slices, strict=True):
        pixels = cv2.imread(str(pair.image), cv2.IMREAD_UNCHANGED)
        lung = cv2.imread(str(pair.mask), cv2.IMREAD_UNCHANGED) > 0
        assert (info.name, info.dtype) == (pair.name, dtype)
        assert (info.low, info.high) == (pixels.min(), pixels.max())
        assert info.dense == (pixels > 700).mean()
        assert info.lung_pixels == lung.sum()
    assert checked.duplicates == []


def test_shape_is_none_if_the_sizes_differ(pair_folder):
    pair_folder(["a", "b"], size=40)
    assert check_folder(pair_folder(["c"], size=24)).shape is None


def test_values_without_their_offset_are_unsigned_despite_padding(pair_folder):
    """As each slice is where it is predicted."""
    folder = pair_folder(["a", "b"])
    assert check_folder(folder).domain == "HU"
    for name in "ab":
        stored = cv2.imread(str(image(folder, name)), cv2.IMREAD_UNCHANGED) + 1050
        stored[:4] = -2000
        write_image(image(folder, name), stored.astype(np.int16))
    assert check_folder(folder).domain == "unsigned"


def test_refuses_mixed_dtypes(pair_folder):
    pair_folder(["a"])
    folder = pair_folder(["b", "c"], dtype="uint8")
    with pytest.raises(UserError) as e:
        check_folder(folder)
    assert e.value.what == "images of several types: int16 (a.tif), uint8 (b.tif)."
    assert e.value.rule == "one type for all." and "int16" in e.value.remedy


def test_reports_all_faults_each_kind_with_its_remedy(pair_folder, monkeypatch):
    names = ["cut", "colour", "good", "huge", "labels", "link", "lone", "nan", "shape"]
    folder = pair_folder([*names, "two", "type"])
    monkeypatch.setattr("lungseg_jax.data.io.images.MAX_PIXELS", 1600)
    labels = (np.arange(1600) % 3).astype(np.uint8).reshape(40, 40)
    cut = image(folder, "cut")
    cut.write_bytes(cut.read_bytes()[:500])
    cv2.imwrite(str(image(folder, "colour")), np.zeros((40, 40, 3), np.uint8))
    for path in (image(folder, "huge"), mask(folder, "huge")):
        write_image(path, np.zeros((41, 40), np.uint8))
    write_image(mask(folder, "labels"), labels)
    image(folder, "link").unlink()
    image(folder, "link").symlink_to("gone.tif")
    mask(folder, "lone").unlink()
    write_image(image(folder, "nan"), np.full((40, 40), np.nan, np.float32))
    write_image(mask(folder, "shape"), np.ones((40, 39), np.uint8))
    image(folder, "two").write_bytes(b"")
    mask(folder, "two").write_bytes(b"")
    write_image(image(folder, "type"), np.zeros((40, 40), np.uint8))
    with pytest.raises(UserError) as e:
        check_folder(folder)
    text = e.value.what
    assert text.splitlines()[0] == f"12 faults in {folder}:"
    kinds = [
        [f"{image(folder, 'link')} is a link to gone.tif, which does not exist."],
        ["2d_images/lone.tif has no mask"],
        [f"{image(folder, 'colour')} has 3 channels."],
        [
            f"{image(folder, 'cut')} is damaged or truncated (500 bytes).",
            f"{image(folder, 'two')} is damaged or truncated (0 bytes).",
            f"{mask(folder, 'two')} is damaged or truncated (0 bytes).",
        ],
        [f"{path(folder, 'huge')} has 40 x 41 pixels." for path in (image, mask)],
        [f"{mask(folder, 'labels')} has the values 0, 1, 2."],
        [f"{image(folder, 'nan')} has NaN or infinite pixels."],
        ["shape: the image is (40, 40), its mask (40, 39)."],
        ["images of several types: int16 (good.tif), uint8 (type.tif)."],
    ]
    for rows in kinds:
        start = "\n".join(f"  {row}" for row in rows)
        after = text.partition(f"\n{start}\n")[2].splitlines()
        assert after[0].startswith("    rule:  "), start
        assert after[1].startswith("    fix:   "), start
    assert text.count("    fix:   ") == len(kinds)
    assert f"{image(folder, 'good')} " not in text


def test_reports_unreadable_files(pair_folder, monkeypatch):
    folder = pair_folder(["a", "b"])
    image(folder, "a").write_bytes(b"cut")
    opened = preflight.Path.open

    def refuse(path, *args, **kwargs):
        if path == mask(folder, "b"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(preflight.Path, "open", refuse)  # root may read anything
    with pytest.raises(UserError) as e:
        check_folder(folder)
    assert f"{mask(folder, 'b')} cannot be read: Permission denied." in e.value.what
    assert f"{image(folder, 'a')} is damaged" in e.value.what


def test_a_table_that_disappears_is_no_digest(pair_folder, monkeypatch):
    folder = pair_folder(["a", "b"])
    table = folder / "slices.csv"
    table.write_text("name,patient\na,1\nb,2\n")
    read = preflight.read_metadata

    def read_and_remove(*arguments):
        metadata = read(*arguments)
        table.unlink()
        return metadata

    monkeypatch.setattr(preflight, "read_metadata", read_and_remove)
    with pytest.raises(UserError, match="slices.csv cannot be read"):
        check_folder(folder)


# --- cached results ---


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that are decoded during the test."""
    read, names = formats.read_slice_array, []

    def recorded(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(formats, "read_slice_array", recorded)
    return names


def test_unchanged_files_are_not_decoded_again(pair_folder, tmp_path, decoded):
    folder, cache = pair_folder(["a", "b"]), tmp_path / "cache"
    first = check_folder(folder, cache=cache)
    assert sorted(decoded) == ["a.tif", "b.tif"]
    assert check_folder(folder, cache=cache) == first
    assert len(decoded) == 2
    image(folder, "a").write_bytes(image(folder, "b").read_bytes())
    assert check_folder(folder, cache=cache) != first
    assert len(decoded) == 4


def test_files_that_change_while_they_are_read_are_refused(
    pair_folder, tmp_path, monkeypatch
):
    folder, cache = pair_folder(["a", "b"]), tmp_path / "cache"
    read = formats.read_slice_array

    def read_and_change(path):
        content = read(path)
        if path.name == "b.tif":
            flip_a_bit(folder)
        return content

    monkeypatch.setattr(formats, "read_slice_array", read_and_change)
    with pytest.raises(UserError, match="has changed while it was read"):
        check_folder(folder, cache=cache)
    assert not list(cache.rglob("*.json"))


def test_faults_are_reported_every_time(pair_folder, tmp_path):
    """Including an unpaired file next to pairs with a cached result."""
    folder, cache = pair_folder(["a", "b"]), tmp_path / "cache"
    check_folder(folder, cache=cache)
    write_image(folder / "2d_images" / "c.tif", np.zeros((4, 4), np.int16))
    for _ in range(2):
        with pytest.raises(UserError, match="c.tif has no mask"):
            check_folder(folder, cache=cache)
    (folder / "2d_images" / "c.tif").unlink()
    image(folder, "a").write_bytes(b"cut")
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            check_folder(folder, cache=cache)


def with_fields(**changes):
    def change(text):
        return json.dumps(json.loads(text) | changes)

    return change


def with_value(i, value):
    def change(text):
        content = json.loads(text)
        content["slices"][0][i] = value
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: "[1, 2]",
        with_fields(version=preflight.VERSION - 1),
        with_fields(slices=[]),
        with_fields(slices=[[1, 2]]),
        with_fields(slices=7),
        with_value(0, "other"),
        with_value(2, "40"),
        with_value(4, None),
    ],
)
def test_replaces_a_damaged_or_outdated_result(pair_folder, tmp_path, decoded, change):
    folder, cache = pair_folder(["a"]), tmp_path / "cache"
    first = check_folder(folder, cache=cache)
    (file,) = cache.glob("checked/*.json")
    content = file.read_text()
    file.write_text(change(content))
    assert check_folder(folder, cache=cache) == first
    assert len(decoded) == 2 and file.read_text() == content


def test_the_cache_need_not_be_writable(pair_folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    folder = pair_folder(["a"])
    assert check_folder(folder, cache=tmp_path / "cache") == check_folder(folder)


# --- equal images ---


def label_air(folder, *names):
    """Cut a channel from the lung to the border of the picture, so that it is outside."""
    for name in names:
        pixels = cv2.imread(str(image(folder, name)), cv2.IMREAD_UNCHANGED)
        pixels[20, 20:] = -1000
        write_image(image(folder, name), pixels)


def test_names_labels_that_have_outside_air_as_lung(pair_folder):
    folder = pair_folder([f"{i:02}" for i in range(40)])
    assert check_folder(folder).air_labels == []
    label_air(folder, "05", "31")
    checked = check_folder(folder)
    assert checked.air_labels == ["05", "31"]
    assert [s.outside_air for s in checked.slices if s.name in ("05", "06")] == [1, 0]


def test_pictures_that_cut_through_lungs_are_not_wrong_labels(pair_folder):
    folder = pair_folder([f"{i:02}" for i in range(40)])
    label_air(folder, "05", "15", "31")
    assert check_folder(folder).air_labels == []


def test_one_wrong_label_of_few_is_named(pair_folder):
    folder = pair_folder("abc")
    label_air(folder, "b")
    assert check_folder(folder).air_labels == ["b"]


def test_outside_air_needs_hounsfield_units(pair_folder):
    folder = pair_folder("abc", dtype="uint8", suffix=".png")
    for path in (folder / "2d_images").iterdir():
        write_image(path, np.zeros((40, 40), np.uint8))
    checked = check_folder(folder)
    assert checked.domain != "HU" and checked.air_labels == []


def test_accepts_the_real_data(real_data):
    checked = check_folder(real_data)
    assert (len(checked.pairs), checked.dtype) == (240, "int16")
    assert checked.shape == (512, 512)
    names = [pair.name for pair in checked.pairs]
    check_split(
        checked,
        split_names(names, validation_fraction=0.1, test_fraction=0.1, seed=3),
    )
