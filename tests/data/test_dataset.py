"""Data are prepared once, again when a file changes, and read by name."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from lungseg_jax.data import dataset
from lungseg_jax.data.lung_ct import builder as lung_ct_builder
from lungseg_jax.data.lung_ct import shards
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.runtime.errors import UserError


def write_pairs(folder, n=5, dtype=np.int16, shapes=((24, 24),), name="s{}"):
    for kind in ("2d_images", "2d_masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        shape = shapes[i % len(shapes)]
        file = name.format(i) + (".png" if dtype == np.uint8 else ".tif")
        image = rng.integers(0, 200, shape).astype(dtype)
        cv2.imwrite(str(folder / "2d_images" / file), image)
        mask = (image > 99).astype(np.uint8) * 255
        cv2.imwrite(str(folder / "2d_masks" / file), mask)
    return folder


def prepared(cache):
    return sorted(p.parent.name for p in cache.glob("tfds/*/variant"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_reads_exact_values_by_name(tmp_path, dtype):
    folder = write_pairs(tmp_path / "d", dtype=dtype, shapes=((24, 24), (10, 31)))
    loaded = dataset.load_dataset(folder, cache=tmp_path / "c")
    assert loaded.names == ["s0", "s1", "s2", "s3", "s4"]
    assert (loaded.variant, loaded.checked.dtype) == (
        f"folder_{np.dtype(dtype)}",
        str(np.dtype(dtype)),
    )
    files = {pair.name: read_slice(pair) for pair in find_pairs(folder)}
    for image_slice in loaded.slices(["s3", "s0", "s4"]):
        expected = files[image_slice.name]
        np.testing.assert_array_equal(image_slice.image, expected.image)
        np.testing.assert_array_equal(image_slice.mask, expected.mask)
        assert image_slice.image.dtype == dtype
    assert "tensorflow" not in sys.modules


def test_the_aspect_of_a_slice_is_that_of_its_pixels(tmp_path):
    folder = write_pairs(tmp_path / "d", n=2)
    (folder / "slices.csv").write_text("name,row_mm,column_mm\ns0,1,2\ns1,3,1\n")
    loaded = dataset.load_dataset(folder, cache=tmp_path / "c")
    assert [loaded.read(name).aspect for name in loaded.names] == [0.5, 3.0]
    assert loaded.shapes(loaded.names) == {(24, 24, 0.5), (24, 24, 3.0)}


def test_shards_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(lung_ct_builder, "SLICES_PER_SHARD", 2)
    folder = write_pairs(tmp_path / "d", n=7)
    loaded = dataset.load_dataset(folder, cache=tmp_path / "c")
    assert len(list((tmp_path / "c").rglob("*.array_record*"))) == 4
    slices = loaded.slices(loaded.names)
    for image_slice, pair in zip(slices, find_pairs(folder), strict=True):
        assert image_slice.name == pair.name
        np.testing.assert_array_equal(image_slice.image, read_slice(pair).image)


def test_prepares_again_only_when_a_file_changes(tmp_path, monkeypatch):
    folder, cache = write_pairs(tmp_path / "d"), tmp_path / "c"
    first = dataset.load_dataset(folder, cache=cache)
    assert prepared(cache) == [first.checked.fingerprint]

    def never(*args):
        raise AssertionError("prepared again")

    with monkeypatch.context() as m:
        m.setattr(dataset, "_prepare", never)
        assert (
            dataset.load_dataset(folder, cache=cache).checked.fingerprint
            == first.checked.fingerprint
        )
    cv2.imwrite(str(folder / "2d_images/s1.tif"), np.full((24, 24), 7, np.int16))
    second = dataset.load_dataset(folder, cache=cache)
    assert second.checked.fingerprint != first.checked.fingerprint
    assert next(second.slices(["s1"])).image.max() == 7
    assert sorted(prepared(cache)) == sorted(
        [first.checked.fingerprint, second.checked.fingerprint]
    )


def test_continues_an_interrupted_preparation(tmp_path, monkeypatch):
    monkeypatch.setattr(lung_ct_builder, "SLICES_PER_SHARD", 2)
    folder, cache, read = write_pairs(tmp_path / "d"), tmp_path / "c", []

    def interrupted(pair):
        if pair.name == "s3":
            raise KeyboardInterrupt
        return read_slice(pair)

    def recorded(pair):
        read.append(pair.name)
        return read_slice(pair)

    with monkeypatch.context() as m:
        m.setattr(lung_ct_builder, "read_slice", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.load_dataset(folder, cache=cache)
    assert prepared(cache) == []
    monkeypatch.setattr(lung_ct_builder, "read_slice", recorded)
    loaded = dataset.load_dataset(folder, cache=cache)
    assert read == ["s2", "s3", "s4"]  # the first shard was complete
    assert [s.name for s in loaded.slices(loaded.names)] == loaded.names
    assert {path.name for path in (cache / "tfds").iterdir()} == {
        loaded.checked.fingerprint,
        f"{loaded.checked.fingerprint}.lock",
    }


def test_files_that_change_while_they_are_prepared_are_not_kept(tmp_path, monkeypatch):
    """They would be found again under the fingerprint of the files before."""
    folder, cache = write_pairs(tmp_path / "d"), tmp_path / "c"
    mask, prepare = folder / "2d_masks/s1.tif", dataset._prepare
    before = mask.read_bytes()

    def change_and_prepare(*arguments):
        cv2.imwrite(str(mask), np.full((24, 24), 255, np.uint8))
        prepare(*arguments)

    with monkeypatch.context() as m:
        m.setattr(dataset, "_prepare", change_and_prepare)
        with pytest.raises(UserError, match="2d_masks/s1.tif has changed"):
            dataset.load_dataset(folder, cache=cache)
    mask.write_bytes(before)
    loaded = dataset.load_dataset(folder, cache=cache)
    assert not loaded.read("s1").mask.all()


def test_never_writes_to_the_data_folder(tmp_path):
    folder = write_pairs(tmp_path / "d")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    dataset.load_dataset(folder, cache=tmp_path / "c")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_recognises_the_kaggle_set_by_names_dtype_and_shape(tmp_path):
    folder = write_pairs(
        tmp_path / "d", n=2, shapes=((512, 512),), name="ID_000{}_Z_0142"
    )
    loaded = dataset.load_dataset(folder, cache=tmp_path / "c")
    assert loaded.variant == "kaggle"
    builder = tfds.builder_from_directory(
        tmp_path / "c/tfds" / loaded.checked.fingerprint / "lung_ct/kaggle/1.0.0"
    )
    assert builder.info.features["image"].shape == (512, 512, 1)
    assert builder.info.splits["slices"].num_examples == 2
    assert "Mader" in builder.info.citation
    assert builder.info.description.startswith("CT slices of the chest")


def test_prepares_phantoms(tmp_path):
    loaded = dataset.load_dataset(
        None, cache=tmp_path, phantom_slices=3, phantom_seed=5
    )
    assert (loaded.variant, len(loaded.names)) == ("phantom", 3)
    phantom = next(loaded.slices(loaded.names[:1]))
    assert phantom.image.shape == (512, 512) and phantom.image.dtype == np.int16
    assert set(np.unique(phantom.mask)) == {0, 1}
    other = dataset.load_dataset(None, cache=tmp_path, phantom_slices=3, phantom_seed=6)
    assert other.checked.fingerprint != loaded.checked.fingerprint


def test_reports_faults_before_anything_is_prepared(tmp_path):
    folder = write_pairs(tmp_path / "d")
    (folder / "2d_images/s1.tif").write_bytes(b"II*\0 cut")
    with pytest.raises(UserError, match=r"s1\.tif is damaged"):
        dataset.load_dataset(folder, cache=tmp_path / "c")
    assert prepared(tmp_path / "c") == []


def test_reports_prepared_data_that_are_damaged(tmp_path):
    loaded = dataset.load_dataset(write_pairs(tmp_path / "d"), cache=tmp_path / "c")
    (records,) = (tmp_path / "c").rglob("*.array_record*")
    os.truncate(records, records.stat().st_size // 2)
    with pytest.raises(UserError, match="s1 cannot be read from the prepared") as e:
        loaded.read("s1")
    assert (
        f"delete {tmp_path / 'c' / 'tfds' / loaded.checked.fingerprint}"
        in e.value.remedy
    )


def test_converts_slices_to_network_arrays(tmp_path):
    loaded = dataset.load_dataset(
        write_pairs(tmp_path / "d", shapes=((24, 24), (10, 31))), cache=tmp_path / "c"
    )
    arrays = NetworkSlices(
        [(loaded, loaded.names, Preprocessing("window", 16, (0.0, 200.0)))],
        soft_masks=True,
    ).stack()
    assert arrays["image"].shape == (5, 16, 16, 1)
    assert arrays["mask"].shape == (5, 16, 16)
    assert arrays["image"].dtype == arrays["mask"].dtype == np.float32
    assert 0 < arrays["mask"].mean() < 1


LOAD = """
import subprocess
import sys
from pathlib import Path
from lungseg_jax.data import dataset
print(len(dataset.load_dataset(None, cache=Path(sys.argv[1]), phantom_slices=12).names))
"""


def test_concurrent_processes_prepare_the_data_once(tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outcomes = [process.communicate(timeout=120) for process in both]
    assert [out.splitlines()[-1] for out, _ in outcomes] == ["12", "12"], outcomes
    assert sum("preparing" in out for out, _ in outcomes) == 1


def test_reports_a_full_disk(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("write() failed: No space left on device")

    monkeypatch.setattr(shards.ExampleWriter, "write", fail)
    folder = write_pairs(tmp_path / "d")
    with pytest.raises(UserError, match="could not be prepared") as e:
        dataset.load_dataset(folder, cache=tmp_path / "c")
    assert "--config.cache_dir=DIR" in e.value.remedy


def test_reads_prepared_data_without_a_lock(tmp_path, monkeypatch):
    folder = write_pairs(tmp_path / "d")
    dataset.load_dataset(folder, cache=tmp_path / "c")
    monkeypatch.setattr(dataset, "exclusive_lock", None)
    assert dataset.load_dataset(folder, cache=tmp_path / "c").names
