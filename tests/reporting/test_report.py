"""The page of a run: what it says, and that it needs nothing but its own folder."""

import csv
import dataclasses
import re

import cv2
import pytest

from lungseg_jax.evaluation.evaluator import evaluate
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting import report

ROWS = [
    {"kind": "train", "step": step, "loss": 1 / step, "learning_rate": 1e-3}
    for step in (1, 2)
] + [{"kind": "snapshot", "step": 2, "loss": 0.5}]


@pytest.fixture
def page(trained, slices, tmp_path):
    """`make(change=..., **keywords) -> (text, evaluation)`, in `tmp_path / "page"`."""

    def make(trained=trained, change=lambda evaluation: None, **keywords):
        some = {one.name: one for one in slices(6)}
        evaluation = evaluate(trained, iter(some.values()), 6)
        change(evaluation)
        report.write_report(
            tmp_path / "page",
            evaluation,
            title="a <b> & c",
            window_hu=(-1000.0, 400.0),
            read=lambda names: [some[name] for name in names],
            segment=LungSegmenter(trained).stream,
            **keywords,
        )
        return (tmp_path / "page/index.html").read_text(), evaluation

    return make


def card(text, heading):
    """Class and words of a card."""
    found = re.search(
        rf'<div class="card ?(\w*)"><h2>{heading}</h2>(.*?)</div>', text, re.DOTALL
    )
    return found[1], re.sub(r"<[^>]+>", " ", found[2])


def test_it_needs_nothing_but_its_folder(page, tmp_path):
    text, _ = page(rows=ROWS)
    files = {path.name for path in (tmp_path / "page").iterdir()}
    linked = set(re.findall(r'(?:src|href)="([^"]*)"', text))
    assert linked == files - {"index.html"}
    assert "curves.png" in linked and "slices.csv" in linked
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    assert "a &lt;b&gt; &amp; c" in text


def test_without_a_training_it_shows_none(page, tmp_path):
    text, _ = page()
    assert "Training" not in text and not (tmp_path / "page/curves.png").exists()


def test_the_cards_say_how_good_and_what_is_bad(page):
    text, found = page()
    style, words = card(text, "How good")
    assert style == "bad" and f"{found['ensemble']['iou_pooled']:.4f}" in words
    style, words = card(text, "Bad slices")
    low = [name for name, one in found["slices"].items() if one["iou"] < 0.95]
    assert style == "bad" and f"{len(low)} of 6" in words
    assert all(name in words for name in low)
    _, words = card(text, "Flagged for review")
    flagged = sum(one["review"] for one in found["slices"].values())
    assert f"{flagged} of 6" in words


def test_bad_slices_are_shown_with_what_is_wrong(page, tmp_path):
    text, found = page()
    shown = re.findall(r"<h3>([\w ]+): (\w+)</h3><p>([^<]*)</p>", text)
    worst = sorted(found["slices"], key=lambda name: found["slices"][name]["iou"])
    assert [name for why, name, _ in shown if why in ("worst", "bad")] == worst
    for name, words in ((name, words) for _, name, words in shown):
        row = found["slices"][name]
        assert f"IoU {row['iou']:.4f}" in words
        assert ("not flagged: is the label right?" in words) != row["review"]
    for case in range(len(shown)):
        for kind in ("mask", "doubt", "slice"):
            picture = cv2.imread(str(tmp_path / f"page/case{case}_{kind}.png"))
            assert picture.shape == (512, 461, 3)  # of 40 x 36


def test_the_median_and_the_best_are_shown_as_well(page):
    def good(found):
        for i, one in enumerate(found["slices"].values()):
            one["iou"], one["expected_iou"] = 0.97 + i / 1000, 0.99 - i / 1000

    text, _ = page(change=good)
    shown = re.findall(r"<h3>([\w ]+): (\w+)</h3>", text)
    assert shown == [("worst", "s00"), ("least sure", "s05"), ("median", "s03")]


def test_a_good_run_is_green(page):
    def good(found):
        found["ensemble"]["iou_pooled"] = 0.99
        for one in found["slices"].values():
            one["iou"] = 0.97
        found["uncertainty"]["n_low"] = 0

    text, _ = page(change=good)
    assert card(text, "How good")[0] == card(text, "Bad slices")[0] == "good"
    assert "the worst: " in card(text, "Bad slices")[1]
    assert "nothing can be said here" in text


def test_where_all_slices_are_bad_it_does_not_say_that_none_is(page):
    text, found = page()
    assert found["uncertainty"]["n_low"] == 6
    assert "All slices have an IoU below 0.95" in text and "No slice has" not in text


def test_slices_of_the_training_are_said(page):
    text, _ = page(change=lambda found: found.update(trained_on=4))
    assert "4 of these slices the run was trained on" in text
    assert "trained on" not in page()[0]


def test_without_validation_trust_is_unknown(page, trained):
    text, _ = page(dataclasses.replace(trained, tuning={}))
    assert "nothing says which masks to review" in card(text, "Trust")[1]
    assert "No temperature was fitted" in text


def test_slices_csv_has_every_slice_worst_first(page, tmp_path):
    _, found = page()
    with (tmp_path / "page/slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    ious = [float(row["iou"]) for row in rows]
    assert ious == sorted(ious) and len(rows) == 6
    for row in rows:
        assert float(row["hd95"]) == found["slices"][row["slice"]]["hd95"]


def test_slices_without_lung_do_not_stop_it(page):
    """All empty in truth and mask: no score anywhere."""

    def empty(found):
        for key, value in found["ensemble"].items():
            if isinstance(value, float):
                found["ensemble"][key] = None
            if isinstance(value, (list, tuple)):
                found["ensemble"][key] = [None, None]
        for one in found["slices"].values():
            one["iou"] = one["dice"] = None
        found["uncertainty"] |= {"n_low": 0}
        found["uncertainty"].pop("risk_coverage")

    text, _ = page(change=empty)
    assert (
        "none" in card(text, "How good")[1] and "0 of 0" in card(text, "Bad slices")[1]
    )
