"""Pairs are matched by name, and files without a partner are reported."""

import os
import shutil
import time

import numpy as np
import pytest

from lungseg_jax.data import pairs
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.metadata import read_metadata
from lungseg_jax.data.pairs import find_pairs, list_images, read_slice, scan
from lungseg_jax.runtime.errors import UserError


def rename(folder, old, new):
    (folder / old).rename(folder / new)


def test_finds_pairs_by_name(pair_folder):
    folder = pair_folder(["b", "a", "c"])
    matched = find_pairs(folder)
    assert [pair.name for pair in matched] == ["a", "b", "c"]
    for pair in matched:
        assert pair.image == folder / "2d_images" / f"{pair.name}.tif"
        assert pair.mask == folder / "2d_masks" / f"{pair.name}.tif"


def test_positions_do_not_matter(pair_folder, monkeypatch):
    """Images are matched with their own masks, however the file system lists them."""
    folder = pair_folder(["a", "b", "c"])
    listed = pairs.Path.iterdir
    monkeypatch.setattr(
        pairs.Path,
        "iterdir",
        # images ascending, masks descending
        lambda self: iter(sorted(listed(self), reverse=self.name == "2d_masks")),
    )
    for pair in find_pairs(folder):
        assert pair.name == pair.image.stem == pair.mask.stem


def test_suffixes_may_differ(pair_folder):
    """`a10` sorts before `a9` and .png before .tif: matching by position would fail."""
    folder = pair_folder(["a9", "a10"])
    write_image(folder / "2d_masks" / "a9.png", np.zeros((40, 40), np.uint8))
    (folder / "2d_masks" / "a9.tif").unlink()
    rename(folder, "2d_images/a10.tif", "2d_images/a10.TIFF")
    files = [(p.name, p.image.name, p.mask.name) for p in find_pairs(folder)]
    assert files == [("a10", "a10.TIFF", "a10.tif"), ("a9", "a9.tif", "a9.png")]


def test_names_and_files_may_sort_differently(pair_folder):
    """`a` comes before `a-1`, but `a-1.tif` before `a.tif`: a hyphen precedes a dot."""
    matched = find_pairs(pair_folder(["a", "a-1"]))
    assert [(p.name, p.image.stem, p.mask.stem) for p in matched] == [
        ("a", "a", "a"),
        ("a-1", "a-1", "a-1"),
    ]


def test_names_may_contain_dots(pair_folder):
    folder = pair_folder(["1.2.840.1", "1.2.840.2"])
    assert [p.name for p in find_pairs(folder)] == ["1.2.840.1", "1.2.840.2"]


def test_skips_hidden_and_other_files(pair_folder):
    folder = pair_folder(["a"])
    for name in (".DS_Store", "._a.tif", "Thumbs.db", "notes.txt"):
        (folder / "2d_images" / name).write_bytes(b"no image")
    assert [p.name for p in find_pairs(folder)] == ["a"]


def test_reads_a_slice(pair_folder):
    image_slice = read_slice(find_pairs(pair_folder(["a"]))[0])
    assert image_slice.name == "a" and image_slice.image.dtype == np.int16
    assert image_slice.mask.dtype == np.uint8 and set(np.unique(image_slice.mask)) == {
        0,
        1,
    }
    # A central disc of radius 10, at -700 with up to 40 of noise.
    assert image_slice.mask[20, 20] == 1 and image_slice.mask[20, 9] == 0
    assert (
        image_slice.image[image_slice.mask == 1].max()
        < -600
        < image_slice.image[image_slice.mask == 0].min()
    )


def test_a_missing_folder_is_reported_with_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as e:
        find_pairs(pairs.Path("none"))
    assert e.value.what == "the data folder none does not exist."
    assert str(tmp_path) in e.value.remedy
    assert "2d_images/ and 2d_masks/" in e.value.rule


@pytest.mark.parametrize("name", ["2d_images", "2d_masks"])
def test_refuses_a_missing_subfolder(pair_folder, name):
    folder = pair_folder(["a"])
    shutil.rmtree(folder / name)
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    assert e.value.what == f"{folder} has no folder {name}/."


def test_refuses_empty_folders(pair_folder):
    folder = pair_folder(["a"])
    for name in ("2d_images", "2d_masks"):
        rename(folder, f"{name}/a.tif", f"{name}/a.jpg")
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    assert f"{folder} holds no slices" in e.value.what
    assert ".tif, .tiff, .png" in e.value.rule


def test_unpaired_files_are_listed_with_similar_names(pair_folder):
    folder = pair_folder(["ID_0000_Z_0142", "ID_0001_Z_0146", "ID_0265_Z_0162"])
    # The letter O for a zero, as typed by hand.
    rename(folder, "2d_masks/ID_0001_Z_0146.tif", "2d_masks/ID_O001_Z_0146.tif")
    (folder / "2d_images" / "ID_0265_Z_0162.tif").unlink()
    write_image(folder / "2d_images" / "other.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    assert e.value.what.splitlines() == [
        f"4 faults in {folder}:",
        "  2d_images/ID_0001_Z_0146.tif has no mask (near: ID_O001_Z_0146)",
        "  2d_images/other.png has no mask",
        "  2d_masks/ID_0265_Z_0162.tif has no image",
        "  2d_masks/ID_O001_Z_0146.tif has no image (near: ID_0001_Z_0146)",
        "    rule:  each file in 2d_images/ has a mask of the same name in 2d_masks/.",
        "    fix:   add or rename the missing files, or move the unpaired ones out.",
    ]


def test_paired_files_are_not_suggested(pair_folder):
    """`scan_000001` already has a mask, so nothing should be renamed to it."""
    folder = pair_folder([f"scan_{i:06d}" for i in range(3)])
    (folder / "2d_masks" / "scan_000002.tif").unlink()
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    assert e.value.what == "2d_images/scan_000002.tif has no mask"
    assert "add or rename" in e.value.remedy


def test_without_masks_every_image_is_unpaired(pair_folder):
    folder = pair_folder([f"s{i:02d}" for i in range(23)])
    for path in (folder / "2d_masks").iterdir():
        path.unlink()
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    lines = e.value.what.splitlines()
    assert lines[0] == f"23 faults in {folder}:" and len(lines) == 1 + 20 + 1 + 2
    assert lines[21] == "  ... and 3 more"


@pytest.mark.parametrize("kind", ["2d_images", "2d_masks"])
def test_refuses_duplicate_names(pair_folder, kind):
    folder = pair_folder(["a", "b"])
    write_image(folder / kind / "b.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError) as e:
        find_pairs(folder)
    assert e.value.what == f"{folder / kind} has both b.png and b.tif."


def test_lists_images_by_name(pair_folder):
    folder = pair_folder(["b", "a"]) / "2d_images"
    listed = list_images(folder)
    assert listed == {"a": folder / "a.tif", "b": folder / "b.tif"}


def test_reports_paths_that_cannot_be_images(pair_folder, tmp_path):
    folder = pair_folder(["dead", "dir", "good", "out", "pipe", "turn"])
    images, masks = folder / "2d_images", folder / "2d_masks"
    for path in (images / "dead.tif", images / "dir.tif", masks / "out.tif"):
        path.unlink()
    (images / "dead.tif").symlink_to("gone.tif")
    (images / "dir.tif").mkdir()
    (tmp_path / "far.tif").write_bytes((masks / "good.tif").read_bytes())
    (masks / "out.tif").symlink_to(tmp_path / "far.tif")
    for path in (images / "pipe.tif", images / "turn.tif"):
        path.unlink()
    os.mkfifo(images / "pipe.tif")
    (images / "turn.tif").symlink_to("turn.tif")
    intact, faults = scan(folder)
    assert [pair.name for pair in intact] == ["good"]
    assert [fault.what for fault in faults] == [
        f"{images / 'dead.tif'} is a link to gone.tif, which does not exist.",
        f"{images / 'dir.tif'} is a folder.",
        f"{images / 'pipe.tif'} is not a file.",
        f"{images / 'turn.tif'} is a link to turn.tif, which does not exist.",
        f"{masks / 'out.tif'} is a link to {tmp_path / 'far.tif'}, outside the "
        "data folder.",
    ]
    assert all(fault.rule and fault.remedy for fault in faults)
    assert "make the entire folder a link" in faults[-1].remedy
    with pytest.raises(UserError, match="5 faults in"):
        find_pairs(folder)
    with pytest.raises(UserError, match="4 faults in"):  # as in predict
        list_images(images)
    assert list(list_images(masks)) == ["dead", "dir", "good", "out", "pipe", "turn"]


def test_reports_names_that_are_not_utf8(pair_folder):
    """Archives of older systems have such names."""
    folder = pair_folder(["a", os.fsdecode(b"caf\xe9")])
    intact, faults = scan(folder)
    assert [pair.name for pair in intact] == ["a"]
    assert [fault.what for fault in faults] == [
        f"{folder}/{kind}/caf\\udce9.tif has a name that is not UTF-8."
        for kind in ("2d_images", "2d_masks")
    ]
    assert len(list_images(folder / "2d_images")) == 2  # predict accepts them


def test_accepts_links_within_the_folder(pair_folder, tmp_path):
    """The folder itself, a subfolder, or a file that points into the folder."""
    folder = pair_folder(["a", "b"])
    (tmp_path / "elsewhere").mkdir()
    (folder / "2d_masks").rename(tmp_path / "elsewhere" / "m")
    (folder / "2d_masks").symlink_to(tmp_path / "elsewhere" / "m")
    (tmp_path / "elsewhere" / "m" / "b.tif").unlink()
    (tmp_path / "elsewhere" / "m" / "b.tif").symlink_to("a.tif")
    (folder / "store").mkdir()
    (folder / "2d_images" / "b.tif").rename(folder / "store" / "b.tif")
    (folder / "2d_images" / "b.tif").symlink_to("../store/b.tif")
    (tmp_path / "link").symlink_to(folder)
    assert [p.name for p in find_pairs(tmp_path / "link")] == ["a", "b"]


def test_many_unpaired_files_are_reported_quickly(tmp_path):
    """Comparing all names with all others would take minutes for 1,500 of each."""
    for kind, tail in (("2d_images", ""), ("2d_masks", "_mask")):
        (tmp_path / kind).mkdir()
        for i in range(1500):
            (tmp_path / kind / f"patient_{i:06d}{tail}.png").touch()
    before = time.process_time()
    with pytest.raises(UserError, match="3000 faults in"):
        find_pairs(tmp_path)
    assert time.process_time() - before < 10


def test_accents_may_be_taken_apart(pair_folder):
    together, apart = "M\u00fcller", "Mu\u0308ller"  # as macOS may write it
    for name, other in ((together, apart), (apart, together)):
        folder = pair_folder([name], folder=f"of {name}")
        mask = folder / "2d_masks" / f"{name}.tif"
        mask.rename(mask.with_name(f"{other}.tif"))
        (pair,) = find_pairs(folder)
        assert pair.name == pair.image.stem == name and pair.mask.exists()
        (folder / "slices.csv").write_text(f"name,patient\n{other},P1\n")
        assert read_metadata(folder, [pair.name]).patients == {name: "P1"}


def test_refuses_a_name_that_is_stored_in_two_ways(pair_folder):
    folder = pair_folder(["M\u00fcller"])
    mask = folder / "2d_masks/M\u00fcller.tif"
    shutil.copy(mask, mask.with_name("Mu\u0308ller.tif"))
    _, (fault,) = scan(folder)
    assert fault.what == (
        rf"{folder}/2d_masks has both 'Mu\u0308ller.tif' and 'M\xfcller.tif'."
    )
