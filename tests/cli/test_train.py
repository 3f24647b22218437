"""`lungseg train`: anywhere, on any number of devices and processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from lungseg_jax.training import loop

ROOT = Path(__file__).parents[2]


def rows_of(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_trains_outside_the_checkout_and_prints_the_scores(trained_run, shared_folder):
    assert trained_run.is_dir()
    output = (shared_folder / "elsewhere/output").read_text()
    assert "as predict writes it" in output


def test_a_device_without_memory_is_a_plain_error(
    lungseg_here, tiny_recipe, tmp_path, monkeypatch
):
    def fail(*args):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes."
        )

    monkeypatch.setattr(loop, "_first_state", fail)
    done = lungseg_here("train", *tiny_recipe, f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    assert "out of memory: 8192.00 GiB were asked for." in done.stderr
    assert "cpu has" in done.stderr
    assert "--config.train.accumulate=2, --config.model.remat=true" in done.stderr


def test_no_module_of_a_training_imports_tensorflow():
    code = "import sys, lungseg_jax.experiment; assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_run_resumes_on_another_number_of_devices(
    trained_run, lungseg, tiny_recipe, tmp_path
):
    """From its first snapshot, on two devices: the same data, equal to rounding."""
    shutil.copytree(trained_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/12")
    for lost in ("evaluation.json", "report/index.html"):
        (tmp_path / "run" / lost).unlink()
    done = lungseg(
        "train",
        *tiny_recipe,
        f"--workdir={tmp_path}/run",
        XLA_FLAGS=f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3",
    )
    assert done.returncode == 0, done.stderr
    assert "on 2 cpu of 3, which divide the batch evenly" in done.stdout
    assert "resuming after step 6" in done.stdout
    before, after = rows_of(trained_run), rows_of(tmp_path / "run")
    assert [row["step"] for row in before] == [row["step"] for row in after]
    for row, resumed in zip(before, after, strict=True):
        if "loss" in row:
            assert resumed["loss"] == pytest.approx(row["loss"], rel=1e-3)


@pytest.fixture
def start_job(start):
    """`start_job(*words, codes=("", ""), **options)` starts a process for each code.

    They are announced as Slurm does. For `codes`, see `start`.
    """

    def start_job(*words, codes=("", ""), **options):
        return [
            start(
                "train",
                "--distributed",
                *words,
                SLURM_JOB_ID=str(os.getpid()),  # determines the port
                SLURM_STEP_NODELIST="localhost",
                SLURM_NTASKS=str(len(codes)),
                SLURM_PROCID=str(i),
                SLURM_LOCALID=str(i),
                code=code,
                **options,
            )
            for i, code in enumerate(codes)
        ]

    return start_job


@pytest.fixture
def run_job(start_job, finish):
    """`run_job(*words, **options)` trains in two processes, to the end."""
    return lambda *words, **options: [
        finish(process) for process in start_job(*words, **options)
    ]


@pytest.mark.slow  # a minute of both cores
def test_two_processes_train_as_one(trained_run, run_job, tiny_recipe, tmp_path):
    first, second = run_job(*tiny_recipe, cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "12 steps of 4 on 2 cpu" in first.stdout
    assert "step" not in second.stdout  # only the primary process prints
    job = tmp_path / "runs/smoke-phantom"
    single, double = rows_of(trained_run), rows_of(job)
    assert len(single) == len(double)
    for a, b in zip(single, double, strict=True):
        for name in a.keys() - {"kind", "steps_per_second"}:
            assert b[name] == pytest.approx(a[name], rel=1e-3), name
    scores = [
        json.loads((folder / "evaluation.json").read_text())
        for folder in (trained_run, job)
    ]
    assert scores[1]["ensemble"]["iou_pooled"] == pytest.approx(
        scores[0]["ensemble"]["iou_pooled"], abs=2e-3
    )

    # Cut back to its first snapshot, it resumes from there to the same end.
    before = rows_of(job)
    shutil.rmtree(job / "checkpoints/12")
    (job / "evaluation.json").unlink()
    first, second = run_job(*tiny_recipe, cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "resuming after step 6" in first.stdout
    for row, resumed in zip(before, rows_of(job), strict=True):
        assert resumed.get("loss") == row.get("loss")


KILLED = """
import os, signal, time
from lungseg_jax.__main__ import main
from lungseg_jax.training.log import TrainingLog

steps = []
add = TrainingLog.add

def add_or_die(self, metrics, count):
    steps.append(count)
    if len(steps) == 9:
        while not os.path.isdir("runs/smoke-phantom/checkpoints/6"):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, metrics, count)

TrainingLog.add = add_or_die
main()
"""


@pytest.mark.slow  # minutes on two cores
@pytest.mark.parametrize("processes", [2, 4])
def test_a_job_that_loses_a_process_ends_and_is_resumed_by_one(
    processes, trained_run, start_job, finish, lungseg, tiny_recipe, tmp_path
):
    """The others end within a minute; the same data follow, in the same order."""
    codes = [""] * (processes - 1) + [KILLED]
    *others, killed = start_job(*tiny_recipe, codes=codes, cwd=tmp_path)
    assert killed.wait(timeout=300) == -signal.SIGKILL
    start = time.monotonic()
    ended = [finish(process) for process in others]
    assert time.monotonic() - start < 60
    if processes > 2:
        # Gloo aborts a process that another failing one has sent half an array.
        ended = [p for p in ended if p.returncode != -signal.SIGABRT]
    for process in ended:
        assert process.returncode == 2, process.stderr
        assert "an exchange with the other processes failed" in process.stderr
        assert "Traceback" not in process.stderr
    done = lungseg("train", *tiny_recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming after step 6" in done.stdout
    single, resumed = rows_of(trained_run), rows_of(tmp_path / "runs/smoke-phantom")
    assert [row["step"] for row in resumed] == [row["step"] for row in single]
    for a, b in zip(single, resumed, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)


@pytest.mark.slow  # half a minute
def test_a_batch_for_each_device_is_kept_by_a_resumed_run(
    lungseg, tiny_recipe, tmp_path
):
    """Started on four devices, and resumed on one."""
    words = [*tiny_recipe, "--config.train.batch_per_device=2"]
    devices = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    first = lungseg("train", *words, cwd=tmp_path, XLA_FLAGS=devices)
    assert first.returncode == 0, first.stderr
    assert "a batch of 2 for each of 4 devices: schedule.peak: 0.005" in first.stdout
    assert "6 steps of 8 on 4 cpu" in first.stdout
    run = tmp_path / "runs/smoke-phantom"
    assert json.loads((run / "run.json").read_text())["scaled_to_devices"] == 4
    before = rows_of(run)
    shutil.rmtree(run / "checkpoints/6")
    (run / "evaluation.json").unlink()
    second = lungseg("train", *words, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "6 steps of 8 on 1 cpu" in second.stdout
    assert "resuming after step 3" in second.stdout
    for row, resumed in zip(before, rows_of(run), strict=True):
        assert resumed["loss"] == pytest.approx(row["loss"], rel=1e-3)


def test_a_job_ends_when_its_primary_process_fails(run_job, tmp_path):
    words = ["--config=configs/smoke.py", "--config.data.dir=nowhere"]
    first, second = run_job(*words, cache=tmp_path)
    assert first.returncode == second.returncode == 2
    assert "nowhere does not exist" in first.stderr
    assert "the primary process has failed" in second.stderr


@pytest.mark.parametrize(
    "words,line",
    [
        ("--noconfig.data.soft_masks", "soft_masks: false"),
        ("--init=runs/other", "init: runs/other"),
        ("--config.seed=1 --config=incp --config=conv", "name: conv"),
    ],
)
def test_prints_the_configuration_that_a_training_would_have(words, line, lungseg_here):
    done = lungseg_here("train", *words.split(), "--print_config")
    assert done.returncode == 0, done.stderr
    assert line in [row.strip() for row in done.stdout.splitlines()]
