"""The commands that the launch scripts run, and their errors."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / "launch"


def launch(script, *words, **environment):
    return subprocess.run(
        [LAUNCH / script, *words],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
    )


def test_slurm_starts_one_process_per_gpu():
    result = launch(
        "slurm.sh", "--dry-run", "--config.name=two words", NODES="2", GPUS="4"
    )
    assert result.returncode == 0, result.stderr
    sbatch, *words = shlex.split(result.stdout)
    assert sbatch == "sbatch"
    assert {"--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"} <= set(words)
    wrapped = shlex.split(words[-1].removeprefix("--wrap="))
    assert wrapped[0] == "srun" and "--distributed" in wrapped
    assert wrapped[wrapped.index("||") - 1] == "--config.name=two words"


@pytest.mark.parametrize("status,queued", [(0, ""), (2, ""), (75, "requeue 17\n")])
def test_requeues_a_slurm_job_that_was_stopped(status, queued, tmp_path):
    *_, wrap = shlex.split(launch("slurm.sh", "--dry-run").stdout)
    for name, line in (("srun", f"exit {status}"), ("scontrol", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    result = subprocess.run(
        ["/bin/bash", "-c", wrap.removeprefix("--wrap=")],
        env={"PATH": str(tmp_path), "SLURM_JOB_ID": "17"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (status, queued)


def test_tpu_pod_starts_one_process_per_host():
    result = launch("tpu_pod.sh", "pod", "zone", "--dry-run", "--workdir=/mnt/run")
    assert result.returncode == 0, result.stderr
    _, copying, running = map(shlex.split, result.stdout.splitlines())
    copied = {Path(word).name for word in copying}
    assert {"lungseg_jax", "configs", "pyproject.toml", "setup.py"} <= copied
    assert {"pod", "--zone=zone", "--worker=all"} <= set(running)
    program = shlex.split(running[-1].removeprefix("--command="))
    assert "--distributed" in program and program[-1] == "--workdir=/mnt/run"


@pytest.mark.parametrize(
    "script,words,message",
    [
        ("slurm.sh", [], "sbatch is not installed"),
        ("tpu_pod.sh", ["pod", "zone"], "gcloud is not installed"),
        ("tpu_pod.sh", [], "NAME ZONE"),
    ],
)
def test_reports_a_missing_tool_or_argument(script, words, message, tmp_path):
    for tool in ("bash", "dirname"):  # a PATH without sbatch and gcloud
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    result = launch(script, *words, PATH=str(tmp_path))
    assert result.returncode == 2
    assert message in result.stderr and "error: " in result.stderr
