"""Runs on object storage: servers on this machine, and the libraries that users have."""

import jax
import numpy as np
import pytest
from tiny_run import SNAPSHOTS, stop_after, tiny_config, untimed_rows, variables_at

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.experiment import run_experiment
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.reporting.run_page import rewrite_run_page
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run


@pytest.mark.slow
def test_an_interrupted_run_ends_as_on_this_machine(
    bucket, tiny_cache, finished_run, capsys
):
    folder, c = RunFolder(f"{bucket}/runs/tiny"), tiny_config(tiny_cache)
    stop_after(5, c, folder)
    assert checkpoints.saved_steps(folder.checkpoints) == [2, 4]
    # What a process leaves that was killed while it copied step 6.
    for name in ("state/d/abc", "seal/metadata"):
        (folder.checkpoints / "6" / name).write_bytes(b"half")
    assert checkpoints.saved_steps(folder.checkpoints) == [2, 4]
    run_experiment(c, f"{bucket}/runs/tiny/")
    assert "resuming after step 4" in capsys.readouterr().out

    assert checkpoints.saved_steps(folder.checkpoints) == list(SNAPSHOTS)
    for step in SNAPSHOTS:
        ours, theirs = variables_at(folder, step), variables_at(finished_run, step)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert untimed_rows(folder) == untimed_rows(finished_run)
    run, reference = Run.open(folder), Run.open(finished_run)
    assert run.tuning == reference.tuning and run.evaluation == reference.evaluation
    assert verify_run(folder) == []
    names = {path.name for path in finished_run.report.iterdir()}
    assert {path.name for path in folder.report.iterdir()} == names
    assert not (folder.path / ".lock").exists()

    ensemble = load_ensemble(str(folder.path), members="average")
    expected = load_ensemble(finished_run.path, members="average")
    jax.tree.map(np.testing.assert_array_equal, ensemble.members, expected.members)
    folder.page.unlink()
    assert rewrite_run_page(folder.path) == folder.page and folder.page.exists()


def test_names_the_process_that_was_killed(bucket, capsys):
    folder = RunFolder(f"{bucket}/killed")
    with folder.claimed():
        with folder.claimed():
            pass
    assert "Two trainings must not write to one folder" in capsys.readouterr().out
    with folder.claimed():
        assert capsys.readouterr().out == ""


def test_trackers_need_a_folder_of_this_machine(bucket, tiny_cache):
    pytest.importorskip("tensorboardX")
    with pytest.raises(UserError, match="is not on this machine"):
        run_experiment(tiny_config(tiny_cache), f"{bucket}/r", track=["tensorboard"])
