"""`lungseg check`: the description of a folder, and its exit status."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lungseg_jax.cli.check import describe_folder
from lungseg_jax.data.io.images import read_image, write_image
from lungseg_jax.data.preflight import check_folder

ROOT = Path(__file__).parents[2]


def test_describes_a_folder_without_changing_it(lungseg_here, pair_folder, tmp_path):
    folder = pair_folder(["a", "b", "c"])
    write_image(folder / "2d_images" / "c.tif", np.arange(-9, 11, dtype=np.int16)[None])
    write_image(folder / "2d_masks" / "c.tif", np.zeros((1, 20), np.uint8))
    (folder / "2d_images" / "b.tif").write_bytes(
        (folder / "2d_images" / "a.tif").read_bytes()
    )
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = lungseg_here("check", folder, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    # 305 pixels of a disc of radius 10 without its rim in 2 of 3 slices, and 20 pixels.
    share = 2 * 305 / (2 * 1600 + 20)
    assert done.stdout.splitlines() == [
        "checking: 3 slices",
        "slices:       3",
        "type:         int16, values -700 to 39",
        "units:        Hounsfield units",
        "width height: 40 x 40 (2 slices), 20 x 1 (1 slice)",
        f"lung:         {share:.1%} of all pixels",
        "empty masks:  1",
        "  c",
        "air labelled: 0",
        "equal images: 1",
        "  a = b",
        f"fingerprint:  {check_folder(folder).fingerprint}",
        "A training refuses equal images that fall into different splits.",
    ]
    expected = done.stdout.removeprefix("checking: 3 slices\n")
    again = lungseg_here("check", folder, cache=tmp_path / "cache")
    assert again.stdout == expected
    quiet = lungseg_here("check", "-q", folder, cache=tmp_path / "new")
    assert quiet.stdout == expected
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_names_labels_that_have_air_around_the_body_as_lung(pair_folder):
    folder = pair_folder(["a", "b"])
    pixels = read_image(folder / "2d_images" / "b.tif")
    pixels[20, 20:] = -1000  # from the lung to the border
    write_image(folder / "2d_images" / "b.tif", pixels)
    lines = describe_folder(check_folder(folder)).splitlines()
    assert lines[6:8] == ["air labelled: 1", "  b"]
    assert lines[-1].startswith("A training leaves out slices whose label has the air")


def test_prints_paths_that_are_not_valid_utf8(lungseg, pair_folder, tmp_path):
    folder = pair_folder(["a"], folder=os.fsdecode(b"caf\xe9"))
    (folder / "2d_masks" / "a.tif").write_bytes(b"cut")
    done = lungseg("check", folder, cache=tmp_path / "cache")
    assert done.returncode == 2 and "caf\\udce9/2d_masks/a.tif" in done.stderr


@pytest.mark.parametrize(
    "spacing,text", [("3,3", "3 mm"), ("0.7,0.7000001", "0.7 mm"), ("1,3", "1 to 3 mm")]
)
def test_equal_spacings_are_one_number(spacing, text, pair_folder):
    folder = pair_folder(["a"])
    (folder / "slices.csv").write_text(f"name,row_mm,column_mm\na,{spacing}\n")
    lines = describe_folder(check_folder(folder)).splitlines()
    assert f"spacing:      {text}" in lines


def test_a_long_list_of_sizes_is_shortened(pair_folder):
    for i in range(8):
        folder = pair_folder([f"s{i}"], size=20 + i)
    line = describe_folder(check_folder(folder)).splitlines()[3]
    assert line.endswith("25 x 25 (1 slice), and 2 more")


@pytest.mark.parametrize("patients,is_noted", [("PPQ", True), ("PQR", False)])
def test_notes_patients_that_are_too_few_to_train(patients, is_noted, pair_folder):
    folder = pair_folder(["a", "b", "c"])
    rows = [
        f"{name},{patient}\n" for name, patient in zip("abc", patients, strict=True)
    ]
    (folder / "slices.csv").write_text("name,patient\n" + "".join(rows))
    description = describe_folder(check_folder(folder))
    assert ("A training needs at least 3 patients" in description) == is_noted


def test_lists_all_faults_and_exits_with_2(lungseg_here, pair_folder, tmp_path):
    folder = pair_folder(["a", "b"])
    for name in ("a", "b"):
        (folder / "2d_images" / f"{name}.tif").write_bytes(b"cut")
    done = lungseg_here("check", folder, cache=tmp_path / "cache")
    assert done.returncode == 2 and done.stdout == "checking: 2 slices\n"
    assert done.stderr.splitlines() == [
        f"error: 2 faults in {folder}:",
        f"  {folder}/2d_images/a.tif is damaged or truncated (3 bytes).",
        f"  {folder}/2d_images/b.tif is damaged or truncated (3 bytes).",
        "    rule:  a complete TIFF or PNG file.",
        "    fix:   copy the file again from its source.",
    ]


def test_a_cache_folder_that_is_named_must_be_usable(
    lungseg_here, pair_folder, tmp_path
):
    (tmp_path / "file").touch()
    folder = pair_folder(["a"])
    done = lungseg_here("check", f"--cache_dir={tmp_path}/file/cache", folder)
    assert done.returncode == 2 and "file/cache cannot be created" in done.stderr
    assert "name another with --cache_dir=DIR." in done.stderr
    assert lungseg_here("check", folder, cache=tmp_path / "file").returncode == 0


@pytest.mark.parametrize(
    "words,message",
    [
        (["--cache_dir=x"], "DIR is missing"),
        (["a", "b"], "unexpected extra argument (b)"),
        (["nowhere"], "nowhere does not exist"),
        (["~no-such-user/x"], "~no-such-user"),
        (["."], "no folder 2d_images"),
        (["--cach_dir=x", "."], "cach_dir"),
    ],
)
def test_a_mistake_is_one_plain_error(words, message, lungseg_here, tmp_path):
    done = lungseg_here("check", *words, cache=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert message in done.stderr and "Traceback" not in done.stderr
    _, _, remedy = done.stderr.partition("fix:")
    assert {*re.findall(r"--\w+", remedy)} <= {"--cache_dir", "--help"}


def test_help_shows_examples_and_flags(lungseg_here, tmp_path):
    done = lungseg_here("check", "--help", cache=tmp_path)
    assert done.returncode == 0
    assert "lungseg check DIR" in done.stdout
    assert "--cache_dir" in done.stdout


@pytest.mark.parametrize("module", ["data.preflight", "evaluation.comparison"])
def test_what_check_and_compare_import_is_light(module):
    """Importing JAX takes longer than checking a hundred slices."""
    code = f"import lungseg_jax.{module}, sys; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_nothing_is_cached_in_the_data_folder(pair_folder, lungseg_here):
    folder = pair_folder(["a", "b"])
    done = lungseg_here("check", f"--cache_dir={folder}/2d_images/cache", folder)
    assert done.returncode == 2 and "nothing is written among the inputs" in done.stderr
    assert {path.name for path in (folder / "2d_images").iterdir()} == {
        "a.tif",
        "b.tif",
    }
