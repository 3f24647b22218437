"""Verification lists every fault of a run."""

import shutil

from tiny_run import flip_bits_of_arrays, variables_at

from lungseg_jax.checkpointing.weights import write_weights
from lungseg_jax.data.augmentation.transforms import TRANSFORMS
from lungseg_jax.training.run import UnsupportedRunError
from lungseg_jax.training.verification import verify_run


def test_reports_an_intact_run_and_names_each_fault(copied_run, capsys):
    assert verify_run(copied_run) == []
    flip_bits_of_arrays(copied_run, 4)
    with copied_run.metrics.open("a") as f:
        f.write("{broken\n")
    shutil.rmtree(copied_run.checkpoints / "7")
    faults = [fault.what for fault in verify_run(copied_run)]
    assert "metrics.jsonl is damaged" in faults[0]
    assert "checkpoints/4 is damaged" in faults[1]
    assert "has lost 7" in faults[2]  # evaluation.json has scores of it
    assert capsys.readouterr().out.count("FAULTY") == len(faults) == 3


def test_a_run_of_options_that_are_unknown_here_is_one_fault(
    copied_run, capsys, monkeypatch
):
    monkeypatch.delitem(
        TRANSFORMS, "padding"
    )  # as if the run's own recipe had added it
    (fault,) = verify_run(copied_run)
    assert "augment.padding" in fault.what
    assert isinstance(fault, UnsupportedRunError)  # nothing is damaged
    printed = capsys.readouterr().out
    assert printed.count("NOT USABLE HERE") == 1 and "FAULTY" not in printed
    assert "checkpoints/4            44" in printed


def test_weights_of_something_else_are_no_average(copied_run):
    write_weights(copied_run.average, {"4": variables_at(copied_run, 4)}, {})
    (fault,) = verify_run(copied_run)
    assert "average.safetensors is not the average of a run" in fault.what
