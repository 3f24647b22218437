"""Scores of a labelled folder: its slices are scored as the training scores them."""

from pathlib import Path

from lungseg_jax.data import preflight
from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.evaluation import labelled_folder


def test_pixels_have_the_aspect_that_a_training_sees(
    trained, pair_folder, tmp_path, monkeypatch
):
    folder = pair_folder(["s0", "s1"])
    (folder / "slices.csv").write_text("name,row_mm,column_mm\ns0,1,2\ns1,3,1\n")
    scored = []
    monkeypatch.setattr(
        labelled_folder,
        "evaluate",
        lambda _, slices, n, **__: scored.extend(slices) or {},
    )
    monkeypatch.setattr(labelled_folder, "is_bundle", lambda path: True)
    checked = preflight.check_folder(folder)
    labelled_folder.evaluate_folder(trained, checked, Path(folder))
    dataset = load_dataset(folder, cache=tmp_path / "cache")
    trained_on = dataset.slices(["s0", "s1"])
    assert [s.aspect for s in scored] == [s.aspect for s in trained_on] == [0.5, 3.0]
