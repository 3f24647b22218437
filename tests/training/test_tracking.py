"""Trackers follow a training, continue with it, and never end it."""

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import stop_after, tiny_config, train, untimed_rows

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.trackers import TRACKERS, TensorBoard, scalars


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def read_events(folder):
    """What TensorBoard shows of a run."""
    events = EventAccumulator(str(folder.path / "tensorboard"))
    return events.Reload()


def rows_of(folder):
    """The scalars of metrics.jsonl by name: steps and values, as TensorBoard has them."""
    expected = {}
    for row in folder.read_metrics():
        for name, value in scalars(row).items():
            expected.setdefault(name, []).append((row["step"], np.float32(value)))
    return expected


def assert_events_are_the_rows(folder):
    events = read_events(folder)
    expected = rows_of(folder)
    assert expected.keys() >= {"train/loss", "snapshot/iou_pooled", "validation/loss"}
    assert set(events.Tags()["scalars"]) == expected.keys()
    for name, pairs in expected.items():
        assert [(e.step, np.float32(e.value)) for e in events.Scalars(name)] == pairs


def test_event_files_have_every_row_and_a_sheet_for_each_snapshot(tiny_cache, folder):
    train(tiny_config(tiny_cache), folder, track=["tensorboard", "tensorboard"])
    assert_events_are_the_rows(folder)
    sheets = read_events(folder).Images("validation")
    assert [sheet.step for sheet in sheets] == [4, 7]
    png = np.frombuffer(sheets[0].encoded_image_string, np.uint8)
    picture = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert picture.shape == (256, 256, 3) and picture.std() > 20  # one validation slice


def test_a_resumed_run_continues_its_event_files(tiny_cache, folder):
    """Steps after the last checkpoint are repeated; each is shown once."""
    c = tiny_config(tiny_cache)
    stop_after(5, c, folder, track=["tensorboard"])
    assert [e.step for e in read_events(folder).Scalars("train/loss")] == [
        1,
        2,
        3,
        4,
        5,
    ]
    train(c, folder, track=["tensorboard"])
    assert_events_are_the_rows(folder)
    assert [e.step for e in read_events(folder).Scalars("train/loss")] == list(
        range(1, 8)
    )
    assert [sheet.step for sheet in read_events(folder).Images("validation")] == [4, 7]


def test_a_tracker_that_comes_later_gets_the_rows_before(tiny_cache, folder):
    """A tracker is not an option of the run: it may come and go."""
    c = tiny_config(tiny_cache)
    stop_after(5, c, folder)
    train(c, folder, track=["tensorboard"])
    assert_events_are_the_rows(folder)


class Failing(TensorBoard):
    """Refuses rows from step 3 on, as a server that is gone would."""

    calls = 0

    def add(self, row):
        if row["step"] >= 3:
            type(self).calls += 1
            raise ConnectionError("no route to host")


def test_a_tracker_that_fails_warns_once_and_ends_nothing(
    tiny_cache, folder, finished_run, monkeypatch, capsys
):
    monkeypatch.setitem(TRACKERS, "failing", Failing)
    train(tiny_config(tiny_cache), folder, track=["failing", "tensorboard"])
    assert untimed_rows(folder) == untimed_rows(finished_run)
    output = capsys.readouterr().out
    assert Failing.calls == 1 and output.count("failing no longer follows") == 1
    assert "ConnectionError: no route to host; metrics.jsonl has every row" in output
    assert_events_are_the_rows(folder)  # the other one goes on


def test_a_tracker_that_cannot_be_opened_ends_nothing(
    tiny_cache, folder, monkeypatch, capsys
):
    class Closed(TensorBoard):
        def __init__(self, *args):
            raise PermissionError("no account")

    monkeypatch.setitem(TRACKERS, "closed", Closed)
    train(tiny_config(tiny_cache), folder, track=["closed"])
    assert capsys.readouterr().out.count("closed no longer follows") == 1
    assert folder.read_metrics()[-1]["step"] == 7


def test_refuses_trackers_that_are_unknown_or_not_installed(
    tiny_cache, folder, monkeypatch
):
    with pytest.raises(UserError, match="unknown tracker 'tensorbord'") as e:
        train(tiny_config(tiny_cache), folder, track=["tensorbord"])
    assert ", ".join(sorted(TRACKERS)) in e.value.rule
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs tensorboardX, which is not") as e:
        train(tiny_config(tiny_cache), folder, track=["tensorboard"])
    assert e.value.remedy == "pip install 'lungseg_jax[tensorboard]'"
    assert not folder.path.exists()


def test_scalars_are_named_by_kind_and_undefined_scores_are_left_out():
    row = {"step": 8, "kind": "validation", "loss": 0.2, "iou_pooled": None}
    assert scalars(row) == {"validation/loss": 0.2}
