"""The page of a report: its text, its tables, and that it is self-contained."""

import base64
import csv
import dataclasses
import json
import re

import cv2
import numpy as np
import pytest

from lungseg_jax.evaluation.evaluator import evaluate
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.metrics.registry import METRICS, Metric
from lungseg_jax.reporting import figures, report
from lungseg_jax.reporting.page import PICTURES

METRICS_ROWS = [
    {"kind": "train", "step": step, "loss": 1 / step, "learning_rate": 1e-3}
    for step in (1, 2)
] + [{"kind": "snapshot", "step": 2, "loss": 0.5}]


@pytest.fixture
def make_page(trained, slices, tmp_path):
    """`make_page(trained, change, title) -> (text, evaluation)`.

    The page is in `tmp_path / "page"`.
    """

    def make(trained=trained, change=lambda evaluation: None, title="a <b> & c"):
        by_name = {image_slice.name: image_slice for image_slice in slices(6)}
        evaluation = evaluate(trained, iter(by_name.values()), 6)
        change(evaluation)
        report.write_report(
            tmp_path / "page",
            evaluation,
            LungSegmenter(trained),
            read=lambda names: [by_name[name] for name in names],
            title=title,
        )
        return (tmp_path / "page/index.html").read_text(), evaluation

    return make


@pytest.fixture
def finished(trained, tmp_path):
    """The ensemble in a run folder with metrics.jsonl."""
    lines = [json.dumps(row) + "\n" for row in METRICS_ROWS]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    return dataclasses.replace(trained, path=tmp_path)


def card(text, heading):
    """Return the class and the words of a card."""
    match = re.search(
        rf'<div class="card ?(\w*)">\s*<h2>{heading}</h2>(.*?)</div>', text, re.DOTALL
    )
    return match[1], words(match[2])


def words(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def cases(text):
    """Return (reason, name, scores) of each example."""
    return re.findall(r"<h3>([\w ]+): (\w+)</h3>\s*<p>([^<]*)</p>", text)


def columns(text, label):
    """Return the cells of the table with this label, by column header."""
    table = re.search(rf'aria-label="{label}">(.*?)</table>', text, re.DOTALL)[1]
    headers = re.findall(r'<th scope="col">([^<]*)</th>', table)
    cells = re.findall(r'<t(?:d|h scope="row")>([^<]*)</t', table)
    rows = [cells[i : i + len(headers)] for i in range(0, len(cells), len(headers))]
    return dict(zip(headers, zip(*rows, strict=True), strict=True))


def set_own_split(evaluation):
    evaluation.update(split="test", split_seed=3)


def test_page_is_self_contained(make_page, finished, tmp_path):
    text, _ = make_page(finished, set_own_split)
    linked = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert linked and all(uri.startswith("data:") for uri in linked)
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    assert text.startswith("<!doctype html>") and '<html lang="en">' in text
    embedded = [base64.b64decode(uri.split(",", 1)[1]) for uri in linked]
    files = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    for name, content in files.items():
        if name != "index.html" and not name.startswith("case"):
            assert content in embedded
    assert {"curves.png", "slices.csv", "expected.png", "case0_mask.png"} <= set(files)
    jpegs = [content for content in embedded if content.startswith(b"\xff\xd8")]
    assert len(jpegs) == len([name for name in files if name.startswith("case")])


def test_title_is_escaped(make_page):
    text, _ = make_page()
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in text and "<b> & c" not in text


def test_every_image_has_an_alternative_text(make_page, finished):
    text, _ = make_page(finished, set_own_split)
    images = re.findall(r"<img[^>]*>", text)
    assert images and all(re.search(r'alt="[^"]+"', image) for image in images)


def test_training_is_shown_only_for_the_own_split(make_page, finished, tmp_path):
    text, _ = make_page(finished)
    assert "Training" not in text and not (tmp_path / "page/curves.png").exists()
    text, _ = make_page(finished, set_own_split)
    assert "<h2>Training</h2>" in text and "(split seed 3)" in text


def test_nothing_of_an_earlier_report_is_left(make_page, finished, tmp_path):
    make_page(finished, set_own_split)
    before = {path.name for path in (tmp_path / "page").iterdir()}
    others = {"case_study.png", "case7_mask.tif"}
    for name in others:
        (tmp_path / "page" / name).touch()

    def improve(evaluation):
        for i, row in enumerate(evaluation["slices"].values()):
            row["iou"], row["expected_iou"] = 0.97 + i / 1000, 0.99 - i / 1000

    text, _ = make_page(finished, improve)
    after = {path.name for path in (tmp_path / "page").iterdir()}
    pictures = {f"case{i}_{key}.png" for i in range(3, 6) for key in PICTURES}
    assert len(cases(text)) == 3 and before - after == pictures | {"curves.png"}
    assert after - before == others


def test_files_of_others_are_left(make_page, tmp_path):
    (tmp_path / "page").mkdir()
    for name in ("curves.png", "case99_mask.png"):
        (tmp_path / "page" / name).write_text("mine")
    make_page()
    for name in ("curves.png", "case99_mask.png"):
        assert (tmp_path / "page" / name).read_text() == "mine"


def test_a_name_with_dollars_is_no_formula():
    scores = {"iou_pooled": 0.9, "iou_pooled_ci95": [0.8, 0.95]}
    figures.to_png(figures.score_intervals([("$a_b^$:14", scores)]))


def test_cards_summarize_quality_and_bad_slices(make_page):
    text, evaluation = make_page()
    style, content = card(text, "Mask quality")
    assert style == "bad" and f"{evaluation['ensemble']['iou_pooled']:.4f}" in content
    style, content = card(text, "Bad slices")
    rows = evaluation["slices"]
    low = [name for name, row in rows.items() if row["iou"] < 0.95]
    assert style == "bad" and f"{len(low)} of 6" in content
    assert all(name in content for name in low)
    _, content = card(text, "Flagged for review")
    assert f"{sum(row['review'] for row in rows.values())} of 6" in content


def test_bad_slices_are_shown_with_their_errors(make_page, tmp_path):
    text, evaluation = make_page()
    rows, shown = evaluation["slices"], cases(text)
    worst = sorted(rows, key=lambda name: rows[name]["iou"])
    assert [name for reason, name, _ in shown if reason in ("Worst", "Bad")] == worst
    for _, name, scores in shown:
        assert f"IoU {rows[name]['iou']:.4f}" in scores
        assert ("not flagged" in scores) != rows[name]["review"]
    for i in range(len(shown)):
        for key in ("mask", "doubt", "slice"):
            picture = cv2.imread(str(tmp_path / f"page/case{i}_{key}.png"))
            assert picture.shape == (512, 461, 3)  # from 40 x 36


def test_embedded_pictures_are_those_of_the_files(make_page, tmp_path):
    text, _ = make_page()
    uris = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    for uri, key in zip(uris, ("mask", "doubt", "slice"), strict=False):
        jpeg = np.frombuffer(base64.b64decode(uri), np.uint8)
        embedded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).astype(int)
        file = cv2.imread(str(tmp_path / f"page/case0_{key}.png")).astype(int)
        assert np.abs(embedded - file).mean() < 3


def test_median_and_best_slices_are_shown(make_page):
    def improve(evaluation):
        for i, row in enumerate(evaluation["slices"].values()):
            row["iou"], row["expected_iou"] = 0.97 + i / 1000, 0.99 - i / 1000

    text, _ = make_page(change=improve)
    shown = [(reason, name) for reason, name, _ in cases(text)]
    assert shown == [("Worst", "s00"), ("Least certain", "s05"), ("Median", "s03")]


def test_cards_of_a_good_run_are_green(make_page):
    def improve(evaluation):
        evaluation["ensemble"]["iou_pooled"] = 0.99
        for row in evaluation["slices"].values():
            row["iou"] = 0.97
        evaluation["uncertainty"]["n_low"] = 0

    text, _ = make_page(change=improve)
    assert card(text, "Mask quality")[0] == card(text, "Bad slices")[0] == "good"
    assert "the worst: s0" in card(text, "Bad slices")[1]
    assert "no slice is bad" in card(text, "Flagged for review")[1]
    assert "No slice has an IoU below 0.95" in text


def test_all_slices_may_be_bad(make_page):
    text, evaluation = make_page()
    assert evaluation["uncertainty"]["n_low"] == 6
    assert "All slices have an IoU below 0.95" in text and "No slice has" not in text


def test_training_slices_are_announced(make_page):
    text, _ = make_page(change=lambda evaluation: evaluation.update(trained_on=4))
    assert "The run was trained on 4 of these slices" in text
    assert "was trained on" not in make_page()[0]


@pytest.mark.parametrize(
    "has_tuning,reason",
    [(True, "the run has no validation split"), (False, "the run has not finished")],
)
def test_what_was_not_tuned_is_unknown(make_page, trained, has_tuning, reason):
    tuning = {}
    if has_tuning:
        one = dataclasses.replace(trained, tuning={})
        tuning = tune(one, lambda: iter(()), 0)
    text, _ = make_page(dataclasses.replace(trained, tuning=tuning))
    style, content = card(text, "Flagged for review")
    assert style == "bad"
    assert f"unknown No review threshold was chosen because {reason}." in content
    assert f"No temperature was fitted because {reason}." in text


@pytest.mark.parametrize(
    "after,effect",
    [
        (0.95, "changes the pooled IoU from 0.9000 to 0.9500"),
        (0.90001, "leaves the pooled IoU at 0.9000"),
    ],
)
def test_clean_up_is_named_with_its_effect(make_page, after, effect):
    def clean(evaluation):
        scores = {name: {"iou_pooled": 0.9} for name in ("none", "fill_holes")}
        name = "drop_islands+fill_holes"
        scores[name] = {"iou_pooled": after}
        evaluation["postprocessing"] = {"chosen": name, "scores": scores}

    text, _ = make_page(change=clean)
    assert "drops components smaller than 1% of the largest and fills holes" in text
    assert effect in text


def test_without_clean_up_the_page_says_so(make_page):
    def leave(evaluation):
        scores = {"none": {"iou_pooled": 0.9}}
        evaluation["postprocessing"] = {"chosen": "none", "scores": scores}

    assert "The masks are not cleaned up." in make_page(change=leave)[0]


def test_an_added_metric_is_shown_everywhere(make_page, monkeypatch):
    metric = Metric(
        name="width",
        label="mask width",
        meaning="columns with any lung",
        compute=lambda pair: float(pair.predicted.any(axis=0).sum()),
        is_distance=True,
        format=".1f",
        in_slice_table=True,
    )
    monkeypatch.setitem(METRICS, metric.name, metric)
    text, evaluation = make_page()
    scores = columns(text, "Scores over all slices")
    row = scores["score"].index("mask width, px")
    assert scores["meaning"][row] == metric.meaning
    assert scores["value"][row] == f"{evaluation['ensemble']['width_mean']:.4f}"
    by_slice = columns(text, "Scores of all slices")
    for name, cell in zip(by_slice["slice"], by_slice["mask width, px"], strict=True):
        assert cell == f"{evaluation['slices'][name]['width']:.1f}"


def test_a_metric_newer_than_the_evaluation_is_left_out(make_page, monkeypatch):
    metric = Metric("newer", "newer", "", compute=lambda pair: 1.0, in_slice_table=True)

    def add(evaluation):
        monkeypatch.setitem(METRICS, metric.name, metric)

    text, _ = make_page(change=add)
    assert "newer" not in columns(text, "Scores over all slices")["score"]
    assert set(columns(text, "Scores of all slices")["newer"]) == {"n/a"}


def test_slices_csv_lists_every_slice_worst_first(make_page, tmp_path):
    text, evaluation = make_page()
    with (tmp_path / "page/slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    ious = [float(row["iou"]) for row in rows]
    assert ious == sorted(ious) and len(rows) == 6
    for row in rows:
        assert float(row["hd95"]) == evaluation["slices"][row["slice"]]["hd95"]
    names = columns(text, "Scores of all slices")["slice"]
    assert list(names) == [row["slice"] for row in rows]


def test_names_need_not_be_valid_utf8(make_page):
    text, _ = make_page(title="run \udcff")
    assert "<h1>run \\udcff</h1>" in text


def test_slices_without_lung_are_reported(make_page):
    """All are empty in both label and mask, so no score is defined."""

    def empty(evaluation):
        for key, value in evaluation["ensemble"].items():
            if isinstance(value, float):
                evaluation["ensemble"][key] = None
            if isinstance(value, (list, tuple)):
                evaluation["ensemble"][key] = [None, None]
        for row in evaluation["slices"].values():
            row["iou"] = row["dice"] = None
        evaluation["uncertainty"] |= {"n_low": 0}
        evaluation["uncertainty"].pop("risk_coverage")

    text, _ = make_page(change=empty)
    assert "n/a" in card(text, "Mask quality")[1]
    assert "0 of 0" in card(text, "Bad slices")[1]


@pytest.mark.filterwarnings("error")
def test_figures_without_lung_say_why_they_are_empty():
    scores = {"iou_pooled": None, "iou_pooled_ci95": [None, None]}
    uncertainty = {"low_iou": 0.95, "review_below": None}
    evaluation = {"uncertainty": uncertainty, "slices": {"a": {"iou": None}}}
    nothing = {"ece": None, "reliability": {"confidence": [None], "frequency": [None]}}
    drawn = {
        "show lung": figures.score_intervals([("all", scores)]),
        "no slice has an IoU": figures.expected_iou(evaluation),
        "no slice ": figures.risk_coverage(evaluation),
        "no such pixels": figures.reliability(
            {"before": nothing, "after": nothing}, "Near the boundary"
        ),
    }
    for reason, figure in drawn.items():
        assert figures.to_png(figure)
        (axes,) = figure.axes
        assert any(reason in text.get_text() for text in axes.texts)
