"""Labels far from a mask of which the network expects more are found."""

import csv

import cv2
import numpy as np
import pytest

import lungseg_jax as ls
from lungseg_jax.data import preflight
from lungseg_jax.data.io.images import write_image
from lungseg_jax.data.phantom.dataset import write_phantoms
from lungseg_jax.evaluation.export import export_runs
from lungseg_jax.evaluation.label_audit import COLUMNS, format_suspects, ranked
from lungseg_jax.evaluation.labelled_folder import audit_folder
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_data import load_dataset_of_run


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A folder with two wrong labels, the names of their slices, and its audit."""
    folder = tmp_path_factory.mktemp("labelled")
    write_phantoms(folder, slices=8, seed=9, size=128)
    masks = {p.stem: p for p in sorted((folder / "2d_masks").iterdir())}
    lungs = {n: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for n, p in masks.items()}
    large = sorted(lungs, key=lambda name: np.count_nonzero(lungs[name]))[-2:]
    air, half = large
    image = cv2.imread(str(folder / f"2d_images/{air}.tif"), cv2.IMREAD_UNCHANGED)
    lungs[air][image < -900] = 255  # the air of the room is labelled
    lungs[half][:, :64] = 0  # one lung is not
    for name in large:
        masks[name].unlink()
        write_image(masks[name], lungs[name])
    checked = preflight.check_folder(folder)
    return checked, set(large), audit_folder(ls.load(), checked, folder)


def test_wrong_labels_have_the_largest_shortfall(audited):
    checked, wrong, audit = audited
    rows = audit.scores.slices
    assert rows.keys() == {pair.name for pair in checked.pairs}
    first = ranked(rows)
    assert {name for name, _ in first[:2]} == wrong
    assert first[1][1]["shortfall"] > 0.2
    for row in rows.values():
        if row["iou"] is not None:
            assert row["shortfall"] == row["expected_iou"] - row["iou"]


def test_the_table_and_the_pictures_have_the_most_suspect_first(audited, tmp_path):
    _, wrong, audit = audited
    audit.write(tmp_path / "audit")
    with (tmp_path / "audit/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["slice"] for row in rows[:2]} == wrong
    assert [row["suspect"] for row in rows[:2]] == ["yes", "yes"]
    shortfalls = [float(row["shortfall"]) for row in rows if row["shortfall"]]
    assert shortfalls == sorted(shortfalls, reverse=True)
    sheet = cv2.imread(str(tmp_path / "audit/labels.png"))
    blue, orange = (
        np.count_nonzero(sheet[..., channel].astype(int) - sheet[..., 2 - channel] > 90)
        for channel in (0, 2)
    )
    assert blue > 1000 and orange > 1000  # only the label, and only the mask


def row(iou, expected):
    shortfall = None if iou is None else expected - iou
    return {"iou": iou, "expected_iou": expected, "shortfall": shortfall}


def test_slices_without_any_lung_come_last_and_are_not_suspect():
    rows = {"empty": row(None, 1.0), "good": row(0.97, 0.95), "wrong": row(0.5, 0.95)}
    assert [name for name, _ in ranked(rows)] == ["wrong", "good", "empty"]
    text = format_suspects(rows)
    assert "1 of 3 labels suspect" in text and "0.500     0.950   wrong" in text
    assert "good" not in text and "empty" not in text
    assert format_suspects({"empty": row(None, 1.0)}) == "none of 1 label is suspect"


def test_poor_masks_are_said_to_prove_little():
    rows = {f"s{i:02}": row(0.3 + i / 100, 0.9) for i in range(12)}
    text = format_suspects(rows)
    assert "and 2 more" in text and "the masks are poor (median IoU 0.35)" in text
    good = {f"s{i}": row(0.95, 0.9) for i in range(12)} | {"wrong": row(0.3, 0.9)}
    assert "poor" not in format_suspects(good)


def test_says_that_a_bundle_does_not_list_its_training_slices(
    finished_run, audited, tmp_path, capsys
):
    checked, _, _ = audited
    export_runs(tmp_path / "bundle", [finished_run.path])
    warning = "does not list its training slices"
    audit_folder(ls.load(tmp_path / "bundle"), checked, tmp_path)
    assert warning in capsys.readouterr().out
    audit_folder(ls.load(), checked, tmp_path)
    assert warning not in capsys.readouterr().out


def test_leaves_out_what_a_run_was_trained_on(finished_run, monkeypatch):
    run = Run.open(finished_run)
    checked = load_dataset_of_run(run).checked
    segmenter = ls.load(finished_run.path)
    audit = audit_folder(segmenter, checked, finished_run.path)
    unseen = {*run.record["split"]["validation"], *run.record["split"]["test"]}
    assert audit.scores.slices.keys() == unseen
    every = {pair.name for pair in checked.pairs}
    monkeypatch.setattr(Run, "trained_on", lambda run, digests: every)
    with pytest.raises(UserError, match="was trained on all slices"):
        audit_folder(segmenter, checked, finished_run.path)
