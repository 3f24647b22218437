"""The model card of a bundle: its text follows bundle.json and the metrics."""

import pytest
from huggingface_hub import ModelCard

from lungseg_jax.inference.ensemble.model_card import render_model_card
from lungseg_jax.metrics.registry import METRICS, Metric

EVALUATION = {
    "n": 24,
    "split": "test",
    "split_seed": 3,
    "threshold": 0.5,
    "unit": "mm",
    "tolerance": 2.0,
    "intervals_over": "patients",
    "ensemble": {
        "iou_pooled": 0.93034,
        "iou_pooled_ci95": [0.92, 0.93829],
        "hd95_mean": 16.36543,
        "hd95_mean_ci95": [None, None],
        "assd_mean": None,
    },
}


@pytest.fixture
def description():
    return {
        "name": "lungs",
        "versions": {"lungseg-jax": "0.1.0"},
        "data": {"variant": "kaggle", "dtype": "int16", "fingerprint": "abc"},
        "preprocessing": {
            "preprocessing": "window",
            "image_size": 64,
            "window_hu": [-1000.0, 400.0],
        },
        "domain": "HU",
        "model": {"name": "inception"},
        "members": ["51", "77"],
        "threshold": 0.5,
        "decision": {
            "temperature": 0.5,
            "postprocessing": "drop_islands+fill_holes",
            "review_below": 0.92365,
            "choice": "all",
        },
        "tuning": {"n": 24, "stressed": 48},
        "evaluation": EVALUATION,
    }


def test_card_shows_scores_with_units_and_intervals(description):
    card = render_model_card(description)
    pooled = "| IoU, pooled | 0.9303 | 0.9200 to 0.9383 | all pixels of all slices"
    assert pooled in card and "| HD95, mm | 16.3654 |  |" in card
    assert "ASSD" not in card  # undefined
    assert "24 test slices" in card and "over patients" in card


def test_card_shows_an_added_metric(description, monkeypatch):
    metric = Metric("width", "mask width", "columns with lung", lambda pair: 1.0, True)
    monkeypatch.setitem(METRICS, metric.name, metric)
    assert "mask width" not in render_model_card(description)
    ensemble = EVALUATION["ensemble"] | {"width_mean": 12.5}
    description["evaluation"] = EVALUATION | {"ensemble": ensemble}
    assert "| mask width, mm | 12.5000 |  | columns with lung |" in render_model_card(
        description
    )


def test_card_of_scores_without_clean_up_and_distances(description):
    scores = EVALUATION["ensemble"] | {"nsd_mean": 0.95}
    description["evaluation"] = EVALUATION | {"ensemble": scores}
    card = render_model_card(description)
    assert "threshold 0.5. Intervals" in card and "NSD tolerates 2 mm" in card
    kept = {"iou_pooled": 0.9}
    without = EVALUATION | {"ensemble": kept, "postprocessing": None}
    card = render_model_card(description | {"evaluation": without})
    assert "threshold 0.5, before the clean-up. Intervals" in card
    assert "NSD tolerates" not in card


def test_the_hub_reads_the_metadata(description):
    description |= {"name": "lungs: v2 # ü", "license": "mit", "datasets": ["org/ct"]}
    data = ModelCard(render_model_card(description)).data
    assert (data.license, data.datasets) == ("mit", ["org/ct"])
    assert data.pipeline_tag == "image-segmentation"
    assert data.library_name == "lungseg_jax" and "lung" in data.tags
    assert data.model_name == "lungs: v2 # ü"
    scores = {r.metric_type: (r.metric_name, r.metric_value) for r in data.eval_results}
    assert scores == {
        "iou_pooled": ("IoU, pooled", 0.93034),
        "hd95_mean": ("HD95, mm", 16.36543),
    }
    result = data.eval_results[0]
    assert (result.dataset_type, result.dataset_split) == ("kaggle", "test")
    assert result.task_type == "image-segmentation"


def test_what_is_unknown_is_not_in_the_metadata(description):
    description["evaluation"] = None
    data = ModelCard(render_model_card(description)).data.to_dict()
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}


def test_card_states_what_was_tuned(description):
    card = render_model_card(description)
    assert "Temperature 0.500 was fitted on 24 validation slices." in card
    reviewed = "expected IoU of 0.924, was chosen on {}. Clean-up".format
    assert reviewed("them and 48 changed versions of them") in card
    assert 'Clean-up of masks: "drop_islands+fill_holes".' in card
    description["tuning"] = {"n": 24, "stressed": 0}
    assert reviewed("them too") in render_model_card(description)
    description["tuning"] = {"n": 24}  # of an older version
    assert reviewed("the validation split") in render_model_card(description)
    description["decision"]["choice"] = ""
    assert "Both are those of all snapshots" in render_model_card(description)
    description["tuning"] = {"n": 0}
    assert "there was no validation split" in render_model_card(description)
    description["tuning"] = {}
    assert "training did not finish" in render_model_card(description)


def test_card_counts_networks(description):
    assert "An ensemble of 2 U-Nets" in render_model_card(description)
    description["members"] = ["77"]
    assert "A U-Net with inception blocks" in render_model_card(description)


def test_card_without_scores_says_so(description):
    description["evaluation"] = None
    assert "was not scored" in render_model_card(description)
