"""The page of a run, written again; what is refused, with what is missing."""

import shutil

import pytest
from tiny_run import stop_after, tiny_config

from lungseg_jax.reporting.run_page import rewrite_run_page
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import loop
from lungseg_jax.training.run_folder import RunFolder


def test_the_page_is_written_again_from_the_run(
    copied_run, finished_run, tiny_cache, monkeypatch
):
    monkeypatch.setattr(loop, "train", lambda *args: pytest.fail("trained again"))
    shutil.rmtree(copied_run.report)
    assert rewrite_run_page(copied_run.path) == copied_run.page
    assert copied_run.page.read_bytes() == finished_run.page.read_bytes()
    names = [
        {p.name for p in run.report.iterdir()} for run in (copied_run, finished_run)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("file", ["tuning", "evaluation"])
def test_the_page_of_an_unfinished_run_is_refused(copied_run, file):
    getattr(copied_run, file).unlink()
    page = copied_run.page.read_bytes()
    match = f"is not finished: it lacks {file}.json.\n"
    with pytest.raises(UserError, match=match) as e:
        rewrite_run_page(copied_run.path)
    assert "command that started it" in e.value.remedy
    assert copied_run.page.read_bytes() == page


def test_the_page_of_a_stopped_run_is_refused(tiny_cache, tmp_path):
    folder = RunFolder(tmp_path / "run")
    stop_after(5, tiny_config(tiny_cache), folder)
    with pytest.raises(
        UserError, match="1 of 2 snapshots, tuning.json, evaluation.json"
    ):
        rewrite_run_page(folder.path)


def test_the_page_of_a_run_that_lost_a_snapshot_is_refused(copied_run):
    shutil.rmtree(copied_run.checkpoints / "4")
    with pytest.raises(UserError, match="lost the snapshots 4"):
        rewrite_run_page(copied_run.path)


def test_a_page_that_cannot_be_written_is_a_user_error(copied_run):
    shutil.rmtree(copied_run.report)
    copied_run.report.touch()
    with pytest.raises(UserError, match="cannot be written"):
        rewrite_run_page(copied_run.path)
