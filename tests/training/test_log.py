"""The rows of metrics.jsonl: divergence stops the run, a full disk does not."""

import errno
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config, train, untimed_rows

from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.experiment import run_experiment
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import validation
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.run_folder import RunFolder


def test_a_loss_that_diverges_stops_the_run(tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "bce", lambda logits, masks: jnp.full(3, jnp.nan))
    c = tiny_config(tiny_cache, **{"train.loss": "bce"})
    with pytest.raises(UserError, match="at step 1 the loss is nan") as e:
        run_experiment(c, str(tmp_path / "run"))
    record = json.loads((tmp_path / "run/run.json").read_text())
    names = e.value.rule.partition(": ")[2].rstrip(".").split(", ")
    assert len(names) == 3 and set(names) <= set(record["split"]["train"])
    assert not (tmp_path / "run/evaluation.json").exists()


def test_rows_refused_by_a_full_disk_are_written_later(
    tiny_cache, finished_run, tmp_path, monkeypatch, capsys
):
    append_metrics, refused = RunFolder.append_metrics, []

    def append_or_fail(self, rows):
        if 2 <= rows[-1]["step"] <= 5:
            refused.append(rows)
            raise OSError(errno.ENOSPC, "No space left on device")
        append_metrics(self, rows)

    monkeypatch.setattr(RunFolder, "append_metrics", append_or_fail)
    folder = RunFolder(tmp_path / "run")
    train(tiny_config(tiny_cache), folder)
    assert len(refused) > 3
    assert untimed_rows(folder) == untimed_rows(finished_run)
    assert capsys.readouterr().out.count("cannot be written") == 1


def test_a_validation_split_without_lung_has_no_iou(tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(
        validation, "unpack_masks", lambda masks: np.zeros_like(unpack_masks(masks))
    )
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"evaluate.threshold": 1.0})  # nothing is lung
    run_experiment(c, str(folder.path))
    rows = [row for row in untimed_rows(folder) if row["kind"] == "snapshot"]
    assert [row["iou_pooled"] for row in rows] == [None, None]


def test_without_a_validation_split_there_are_no_rows_of_scores(tiny_cache, tmp_path):
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"data.validation_fraction": 0.0})
    train(c, folder)
    kinds = [row["kind"] for row in folder.read_metrics()]
    assert "validation" not in kinds and kinds.count("snapshot") == 2
