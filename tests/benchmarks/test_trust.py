"""How well `review` detects bad masks: the scores of changed slices."""

import json
from types import SimpleNamespace

import numpy as np
import trust

from lungseg_jax.data.io.images import write_image


def test_an_empty_mask_is_right_where_there_is_no_lung(
    pair_folder, tmp_path, monkeypatch
):
    data = pair_folder(["a", "b"])
    write_image(data / "2d_masks" / "b.tif", np.zeros((40, 40), np.uint8))
    (tmp_path / "run.json").write_text(json.dumps({"split": {"test": ["a", "b"]}}))

    def stream_slices(slices):
        for image, _ in slices:
            mask = np.zeros(image.shape, bool)
            yield SimpleNamespace(
                mask=mask, expected_iou=0.5, disagreement=0.0, review=True
            )

    monkeypatch.setattr(
        trust, "load", lambda run: SimpleNamespace(stream_slices=stream_slices)
    )
    change = trust.CHANGES[trust.UNCHANGED]
    rows = trust.predictions(data, tmp_path, change, every=False)
    assert [row["iou"] for row in rows] == [0.0, 1.0]


def test_repeated_predictions_of_a_slice_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    low = rng.random(40) < 0.4
    score, slices = low + rng.normal(0, 0.8, 40), np.arange(40)
    once = trust.interval(score, low, slices)
    assert trust.interval(*(np.repeat(a, 9) for a in (score, low, slices))) == once
