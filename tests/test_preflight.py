"""Every file is read once; all faults come in one error."""

import hashlib
import os

import cv2
import numpy as np
import pytest

from lungseg_jax.data.pairs import find_pairs
from lungseg_jax.data.preflight import check_pairs, digests, fingerprint
from lungseg_jax.data.writers import write_image
from lungseg_jax.errors import UserError


def fingerprint_of(folder):
    return fingerprint(digests(find_pairs(folder)))


def test_digests_are_sha256_by_relative_path(pair_folder):
    folder = pair_folder(["a", "b"])
    found = digests(find_pairs(folder))
    assert list(found) == [
        "2d_images/a.tif",
        "2d_masks/a.tif",
        "2d_images/b.tif",
        "2d_masks/b.tif",
    ]
    for path, digest in found.items():
        assert digest == hashlib.sha256((folder / path).read_bytes()).hexdigest()


def test_fingerprint_by_hand():
    rows = {"2d_masks/a.tif": "22", "2d_images/a.tif": "11"}
    text = b"2d_images/a.tif 11\n2d_masks/a.tif 22"
    assert fingerprint(rows) == hashlib.sha256(text).hexdigest()[:16]


def test_fingerprint_is_of_content_and_names_not_of_place_or_time(pair_folder):
    here, there = pair_folder(["a", "b"]), pair_folder(["a", "b"], folder="elsewhere")
    for path in there.rglob("*.tif"):
        os.utime(path, (1, 1))
    assert fingerprint_of(here) == fingerprint_of(there)


def one_bit(folder):
    path = folder / "2d_masks" / "b.tif"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_name(folder):
    for kind in ("2d_images", "2d_masks"):
        (folder / kind / "b.tif").rename(folder / kind / "c.tif")


def swapped(folder):
    """The same four contents under the same four names, two of them exchanged."""
    a, b = (folder / "2d_images" / name for name in ("a.tif", "b.tif"))
    contents = a.read_bytes(), b.read_bytes()
    b.write_bytes(contents[0])
    a.write_bytes(contents[1])


def one_fewer(folder):
    for kind in ("2d_images", "2d_masks"):
        (folder / kind / "b.tif").unlink()


@pytest.mark.parametrize("change", [one_bit, other_name, swapped, one_fewer])
def test_fingerprint_changes_with_content_and_names(pair_folder, change):
    folder = pair_folder(["a", "b"])
    before = fingerprint_of(folder)
    change(folder)
    assert fingerprint_of(folder) != before


def test_a_file_that_is_gone_is_named(pair_folder):
    found = find_pairs(pair_folder(["a"]))
    found[0].mask.unlink()
    with pytest.raises(UserError, match="2d_masks/a.tif cannot be read"):
        digests(found)


@pytest.mark.parametrize("dtype,suffix", [("int16", ".tif"), ("uint8", ".png")])
@pytest.mark.parametrize("size", [40, 24])
def test_dtype_and_common_shape(pair_folder, dtype, suffix, size):
    folder = pair_folder(["a", "b"], dtype=dtype, suffix=suffix, size=size)
    calls = []
    result = check_pairs(find_pairs(folder), lambda: calls.append(None))
    assert result == (dtype, (size, size))
    assert len(calls) == 2


def test_no_common_shape(pair_folder):
    pair_folder(["a", "b"], size=40)
    folder = pair_folder(["c"], size=24)
    assert check_pairs(find_pairs(folder)) == ("int16", None)


def test_mixed_dtypes_are_refused(pair_folder):
    pair_folder(["a"])
    folder = pair_folder(["b", "c"], dtype="uint8")
    with pytest.raises(UserError) as e:
        check_pairs(find_pairs(folder))
    assert e.value.what.splitlines() == [
        f"faults in {folder}: 1",
        "  images of several types: int16 (a.tif), uint8 (b.tif). "
        "Rule: one type for all.",
    ]


def test_all_faults_in_one_error(pair_folder):
    names = ["cut", "colour", "good", "labels", "shape", "two", "type"]
    folder = pair_folder(names)

    def image(name):
        return folder / "2d_images" / f"{name}.tif"

    def mask(name):
        return folder / "2d_masks" / f"{name}.tif"

    labels = (np.arange(1600) % 3).astype(np.uint8).reshape(40, 40)
    image("cut").write_bytes(image("cut").read_bytes()[:500])
    cv2.imwrite(str(image("colour")), np.zeros((40, 40, 3), np.uint8))
    write_image(mask("labels"), labels)
    write_image(mask("shape"), np.zeros((40, 39), np.uint8))
    image("two").write_bytes(b"")
    mask("two").write_bytes(b"")
    write_image(image("type"), np.zeros((40, 40), np.uint8))
    calls = []
    with pytest.raises(UserError) as e:
        check_pairs(find_pairs(folder), lambda: calls.append(None))
    assert len(calls) == len(names)
    head, *rows = e.value.what.splitlines()
    assert head == f"faults in {folder}: 7"
    expected = [
        (f"{image('colour')} has 3 channels.", "gray: one channel"),
        (f"{image('cut')} is damaged or cut short (500 bytes).", "a complete TIFF"),
        (f"{mask('labels')} has the values 0, 1, 2.", "two values"),
        ("shape: the image is (40, 40), its mask (40, 39).", "equal heights"),
        (f"{image('two')} is damaged or cut short (0 bytes).", "a complete TIFF"),
        (f"{mask('two')} is damaged or cut short (0 bytes).", "a complete TIFF"),
        ("images of several types: int16 (good.tif), uint8 (type.tif).", "one type"),
    ]
    for row, (what, rule) in zip(rows, expected, strict=True):
        assert row.startswith(f"  {what} Rule: ") and rule in row
    assert "good.tif has" not in e.value.what


def test_real_data_pass(real_data):
    found = find_pairs(real_data)
    assert len(found) == 240
    assert check_pairs(found) == ("int16", (512, 512))
