"""The builder is one of tfds, which can also prepare a folder without the rest."""

import tempfile

import numpy as np
import tensorflow_datasets as tfds

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.lung_ct import builder


def test_tfds_prepares_the_records_that_a_training_reads(
    pair_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(builder, "SLICES_PER_SHARD", 2)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folder = pair_folder(["a", "b", "c"])
    prepared = builder.LungCT(
        data_dir=tmp_path / "tfds", config="folder_int16", file_format="array_record"
    )
    prepared.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder)
    )
    records = prepared.as_data_source(split=builder.SPLIT)
    dataset = load_dataset(folder, cache=tmp_path / "cache")
    assert len(records) == len(dataset.names) == 3
    assert not list((tmp_path / "tmp").iterdir())  # tfds leaves a folder there
    for record, image_slice in zip(records, dataset.slices(dataset.names), strict=True):
        assert record["name"].decode() == image_slice.name
        np.testing.assert_array_equal(record["image"][..., 0], image_slice.image)
        np.testing.assert_array_equal(record["mask"][..., 0] > 0, image_slice.mask > 0)
