"""`benchmarks/robustness.py`: which slices it scores, what it counts, what it prints."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import robustness
from contestants.threshold import threshold_lungs
from stress import scores, tables
from stress.families import FAMILIES
from stress.tables import THRESHOLD

from lungseg_jax.data.pairs import Slice, find_pairs
from lungseg_jax.runtime.errors import UserError

RUN = Path(__file__).parents[1] / "legacy" / "v0.1" / "run"
DATA = RUN.parent / "data"
MASK = np.zeros((64, 64), bool)
EXPECTED = 0.7
MASK[20:44, 12:26] = MASK[20:44, 38:52] = True


class FakeSegmenter:
    """Segments by a function of each image, and remembers the shapes of its calls."""

    trained = SimpleNamespace(domain="HU")

    def __init__(self, segment, review=False):
        self.segment, self.review, self.calls = segment, review, []

    def __call__(self, images):
        self.calls.append(images.shape)
        masks = np.stack([self.segment(image) for image in images])
        review = None if self.review is None else np.full(len(images), self.review)
        expected = np.full(len(images), EXPECTED)
        return SimpleNamespace(mask=masks, review=review, expected_iou=expected)

    def stream(self, images):
        for image in images:
            yield SimpleNamespace(
                mask=self.segment(image), review=self.review, expected_iou=EXPECTED
            )


def chest(seed):
    rng = np.random.default_rng(seed)
    image = np.full(MASK.shape, -1000.0)
    image[8:56, 4:60] = 40
    image[MASK] = -800
    image += rng.normal(0, 10, image.shape)
    return Slice(f"chest{seed}", image.astype(np.int16), MASK.astype(np.uint8))


def run_families(names, segmenter, **kwargs):
    slices = [chest(i) for i in range(3)]
    scored = robustness.run_families(names, slices, {"net": segmenter}, **kwargs)
    return {name: family for name, family, *_ in scored}


# --- scores ---


def cell(*counts, **kwargs):
    return scores.Cell(np.array(counts, np.int64), **kwargs)


def test_pooled_iou_and_its_paired_difference():
    good, bad = cell((90, 5, 5), (80, 10, 10)), cell((60, 20, 20), (50, 25, 25))
    summary = scores.summarize_cell(good, bad, has_lung=True)
    assert summary["iou"] == summary["score"] == pytest.approx(170 / 200)
    low, high = summary["score_ci95"]
    assert 0.8 <= low < 0.85 < high <= 0.9
    assert summary["minus_threshold"] == pytest.approx(0.85 - 0.55)
    assert summary["minus_threshold_ci95"][0] > 0.29
    assert summary["flagged"] is None and "found" not in summary


def test_false_lung_counts_where_there_is_none():
    body, area = np.array([1000, 1000]), np.array([0.01, 0.01])
    mine = cell((0, 0, 0), (0, 100, 0), body=body, pixel_cm2=area)
    perfect = cell((0, 0, 0), (0, 0, 0), body=body, pixel_cm2=area)
    summary = scores.summarize_cell(mine, perfect, has_lung=False)
    assert summary["false_share"] == pytest.approx(0.05)
    assert summary["false_cm2"] == pytest.approx(0.5)
    assert summary["empty"] == 0.5
    family = scores.summarize_family(
        [mine, perfect], [perfect, mine], levels="ab", moderate="ab", has_lung=False
    )
    assert family["worst_level"] == "a" and family["worst"] == pytest.approx(0.05)
    assert family["perhaps_below_threshold"] == ["a"]


def test_found_is_the_share_of_changed_lung():
    truth = np.array([[1, 1, 1, 0]], bool)
    changed = np.array([[1, 1, 0, 0]], bool)
    predicted = np.array([[1, 0, 1, 1]], bool)
    scored = scores.score_cell([predicted], [truth], changed=[changed], flagged=[True])
    np.testing.assert_array_equal(scored.counts, [[2, 1, 1]])
    summary = scores.summarize_cell(scored, scored, has_lung=True)
    assert summary["found"] == 0.5 and summary["flagged"] == 1.0
    assert summary["score_ci95"] is None  # of one slice


def test_a_family_has_a_mean_a_worst_level_and_losses():
    best, middle, worst = cell((99, 1, 0)), cell((90, 10, 0)), cell((50, 50, 0))
    ten_lines = [cell((90, 10, 0), (90, 10, 0))] * 3
    mine = [cell(*c.counts, *c.counts) for c in (best, middle, worst)]
    summary = scores.summarize_family(
        mine, ten_lines, levels=(1, 2, 3), moderate=(1, 2), has_lung=True
    )
    assert summary["moderate_mean"] == pytest.approx((0.99 + 0.9) / 2)
    assert summary["minus_threshold"] == pytest.approx(0.045)
    assert summary["worst"] == pytest.approx(0.5) and summary["worst_level"] == 3
    assert summary["below_threshold"] + summary["perhaps_below_threshold"] == [3]


def test_what_is_undefined_is_none():
    nothing = cell((0, 0, 0), (0, 0, 0))
    summary = scores.summarize_cell(nothing, nothing, has_lung=True)
    assert summary["iou"] is summary["score"] is summary["minus_threshold"] is None
    family = scores.summarize_family(
        [nothing], [nothing], levels=[1], moderate=[1], has_lung=True
    )
    assert family["moderate_mean"] is family["worst"] is None
    assert family["below_threshold"] == []


def test_review_is_scored_over_all_cells():
    good, bad = (95, 3, 2), (60, 20, 20)
    cells = [
        cell(
            good, bad, expected_iou=np.array([0.97, 0.9]), flagged=np.array([0, 1]) > 0
        ),
        cell(good, bad, expected_iou=np.array([0.95, 0.96]), flagged=np.zeros(2) > 0),
        cell(refused="other units"),  # it has no masks
    ]
    found = scores.summarize_review(cells)
    assert (found["n"], found["low"]) == (4, 2)
    assert found["auroc"] == pytest.approx(3 / 4)
    assert (found["flagged_low"], found["flagged_others"]) == (0.5, 0.0)
    assert scores.summarize_review([cell(good)]) is None
    table = tables.review_table({"review": {"net": found}})
    assert table.splitlines()[-1] == "| net | 4 | 2 | 0.750 | 50 % | 0 % |"


# --- families ---


def test_a_perfect_segmenter_beats_the_threshold_and_a_blind_one_does_not():
    names = ["consolidation", "without lung"]
    perfect = run_families(names, FakeSegmenter(lambda image: MASK.copy(), review=True))
    filled = perfect["consolidation"]["summary"]["net"]
    assert filled["moderate_mean"] == 1.0 and filled["flagged"] == 1.0
    assert filled["below_threshold"] == filled["perhaps_below_threshold"] == []
    whole = perfect["consolidation"]["levels"][-1]["scores"]
    assert whole["net"]["found"] == 1.0 and whole[THRESHOLD]["found"] < 0.1
    assert whole["net"]["minus_threshold"] > 0.3
    # The same mask is wrong where there is no lung.
    false = perfect["without lung"]["levels"][0]["scores"]["net"]
    assert false["empty"] == 0.0 and false["false_share"] > 0.2
    blind = run_families(names, FakeSegmenter(lambda image: np.zeros_like(MASK)))
    assert blind["consolidation"]["summary"]["net"]["worst"] == 0.0
    assert blind["consolidation"]["summary"]["net"]["below_threshold"]
    assert blind["without lung"]["summary"]["net"]["moderate_mean"] == 0.0


def test_the_threshold_as_a_segmenter_equals_the_threshold():
    families = run_families(
        ["noise", "crop to one lung"], FakeSegmenter(threshold_lungs)
    )
    for family in families.values():
        for row in family["levels"]:
            assert row["scores"]["net"]["iou"] == row["scores"][THRESHOLD]["iou"]
            assert row["scores"]["net"]["minus_threshold"] == 0.0


def test_a_level_is_predicted_as_one_series():
    segmenter = FakeSegmenter(threshold_lungs, review=None)
    families = run_families(["pixel size", "crop to the chest"], segmenter)
    levels = len(FAMILIES["pixel size"].levels)
    assert all(len(shape) == 3 and shape[0] == 3 for shape in segmenter.calls)
    assert len(segmenter.calls) >= 1 + levels
    assert families["crop to the chest"]["summary"]["net"]["flagged"] is None


def test_slices_of_different_sizes_are_streamed():
    images = [np.full((8, 8), -900, np.int16), np.full((8, 9), -900, np.int16)]
    segmenter = FakeSegmenter(lambda i: i < 0)
    masks, review, expected = robustness.predict(segmenter, images)
    assert [m.shape for m in masks] == [(8, 8), (8, 9)] and review == [False, False]
    assert expected == [EXPECTED] * 2
    gray = [np.arange(image.size).reshape(image.shape) for image in images]
    with pytest.raises(UserError, match="was trained on"):
        robustness.predict(FakeSegmenter(lambda i: i < 0), gray)


def test_a_refusal_is_reported_and_not_scored():
    class Refusing(FakeSegmenter):
        def __call__(self, images):
            if images.min() < -1500:
                raise UserError("these are not Hounsfield units.")
            return super().__call__(images)

    families = run_families(["padding"], Refusing(threshold_lungs))
    rows = families["padding"]["levels"]
    assert rows[0]["scores"]["net"] == {"refused": "these are not Hounsfield units."}
    summary = families["padding"]["summary"]["net"]
    assert summary["refused"] == [
        "round field, -3024",
        "round field, -2000",
        "around the body, -2000",
    ]
    assert summary["worst"] is not None
    text = tables.level_table({"runs": ["net"], "families": families})
    assert text.count("refused") == 3
    assert "refused: round field" in tables.summary_table(
        {"runs": ["net"], "families": families}
    )


def test_real_slices_without_lung_can_be_added(pair_folder):
    from lungseg_jax.data.io.images import write_image

    folder = pair_folder(["a", "b"])
    with pytest.raises(UserError, match="no slice with an empty mask"):
        robustness.series_without_lung(folder)
    write_image(folder / "2d_masks" / "b.tif", np.zeros((40, 40), np.uint8))
    families = run_families(
        ["without lung"], FakeSegmenter(threshold_lungs), without_lung=folder
    )
    last = families["without lung"]["levels"][-1]
    assert last["level"] == robustness.REAL
    assert last["scores"]["net"]["empty"] == 0.0  # the disc is still in the image


def test_tables_have_a_row_for_each_level_and_family():
    families = run_families(["blur", "without lung"], FakeSegmenter(threshold_lungs))
    results = {"runs": ["net"], "families": families}
    levels = tables.level_table(results).splitlines()
    assert len(levels) == 2 + 1 + 5 + 4
    assert levels[0] == "| change | level | ten lines | net | flagged |"
    assert "| blur | 0.5 mm |" in levels[3]
    summary = tables.summary_table(results).splitlines()
    assert len(summary) == 2 + 3
    assert all(line.count("|") == summary[0].count("|") for line in summary)
    assert "0.5 to 1.5 mm" in summary[3] and "% false" in summary[4]


def test_thins_out_evenly():
    assert robustness.thin_out(range(9), 3) == [0, 4, 8]
    assert robustness.thin_out([1, 2], 5) == [1, 2]


# --- the command ---


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    """The run names its cache by a relative path."""
    monkeypatch.chdir(tmp_path)


def test_a_run_is_scored_on_its_own_test_split(pair_folder):
    pairs, runs = find_pairs(DATA), {"run": RUN}
    split = json.loads((RUN / "run.json").read_text())["split"]
    for name in ("test", "validation"):
        scored, trained_here = robustness.held_out(pairs, runs, name)
        assert {pair.name for pair in scored} == set(split[name])
        assert trained_here == ["run"]
    assert robustness.held_out(pairs, runs, "all") == (pairs, [])
    bundle = {"bundle": RUN.parent / "bundle"}  # it does not name its slices
    assert robustness.held_out(pairs, bundle, "test") == (pairs, [])
    others = find_pairs(pair_folder(["a", "b"]))
    assert robustness.held_out(others, runs, "test") == (others, [])


def test_the_command_writes_tables_a_figure_and_pictures(
    in_tmp_path, tmp_path, monkeypatch, capsys
):
    words = [f"tiny={RUN}", f"--data={DATA}", "--slices=2"]
    words += ["--families=offset,crop to one lung", f"--out={tmp_path}", "--pictures"]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *words])
    robustness.main()
    out = capsys.readouterr().out
    assert "| offset | -200 HU |" in out and "tiny: mean" in out
    results = json.loads((tmp_path / "robustness.json").read_text())
    assert len(results["slices"]) == 2 and results["trained_on_this_data"] == ["tiny"]
    assert list(results["families"]) == ["unchanged", "offset", "crop to one lung"]
    assert results["families"]["offset"]["neutral"]["level"] == 0
    assert (tmp_path / "robustness.md").read_text() in out
    for name in ("robustness.png", "pictures.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words,message",
    [
        (["nowhere", "--data=DATA"], "nowhere"),
        (["RUN", "--data=nowhere"], "does not exist"),
        (["RUN", "--data=DATA", "--families=nose"], "unknown family 'nose'"),
        (["RUN", "RUN", "--data=DATA"], "NAME=RUN"),
        (["RUN", "--data=DATA", "--slices=0"], "at least 1"),
    ],
)
def test_mistakes_end_with_status_2(in_tmp_path, monkeypatch, capsys, words, message):
    known = {"RUN": str(RUN), "--data=DATA": f"--data={DATA}"}
    words = [known.get(word, word) for word in words]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *words])
    with pytest.raises(SystemExit) as error:
        robustness.main()
    assert error.value.code == 2
    assert message in capsys.readouterr().err
