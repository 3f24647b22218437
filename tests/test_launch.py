"""The commands that the launch scripts run, and their errors."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lungseg_jax.cli import train
from lungseg_jax.training import knobs

LAUNCH = Path(__file__).parent.parent / "launch"


def launch(script, *words, **environment):
    return subprocess.run(
        [LAUNCH / script, *words],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
    )


def write_program(path, line):
    """Write a program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def find_linter(name):
    """The path of a linter that the extra [test] installs, or None."""
    return shutil.which(
        name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_scripts_have_no_faults_that_shellcheck_finds(script):
    shellcheck = find_linter("shellcheck")
    words = [shellcheck, "-x"] if shellcheck else ["bash", "-n"]
    result = subprocess.run(
        [*words, f"launch/{script}"], cwd=LAUNCH.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_dockerfile_has_no_faults_that_hadolint_finds():
    hadolint = find_linter("hadolint")
    if not hadolint:
        pytest.skip("hadolint is not installed")
    result = subprocess.run(
        [hadolint, "Dockerfile"], cwd=LAUNCH.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_gpus_starts_one_process_per_gpu():
    result = launch("gpus.sh", "--dry-run", "--config.name=two words", GPUS="3")
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert len(commands) == 3
    for i, (env, *words) in enumerate(commands):
        assert env == "env" and "JAX_NUM_PROCESSES=3" in words
        assert {f"JAX_PROCESS_ID={i}", f"JAX_LOCAL_DEVICE_IDS={i}"} <= set(words)
        assert "--distributed" in words and words[-1] == "--config.name=two words"


@pytest.mark.parametrize(
    "variables,count",
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1,3", "GPUS": "3"}, 3),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus_counts_those_that_it_may_use(variables, count, tmp_path):
    write_program(tmp_path / "nvidia-smi", "printf 'GPU\\n%.0s' 1 2 3 4")
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = launch("gpus.sh", "--dry-run", **variables, PATH=path)
    assert len(result.stdout.splitlines()) == count
    assert (result.returncode, "names none" in result.stderr) == (
        (0, False) if count else (2, True)
    )


@pytest.mark.parametrize("variables,extras", [({}, "[gpu]"), ({"EXTRAS": ""}, "")])
def test_slurm_installs_the_extras_that_are_asked_for(variables, extras, tmp_path):
    for name in ("sbatch", "venv/bin/pip"):
        write_program(tmp_path / name, 'echo "${0##*/}" "$@"')
    path, venv = f"{tmp_path}:{os.environ['PATH']}", str(tmp_path / "venv")
    variables = variables | {"PATH": path, "VENV": venv, "PYTHON": sys.executable}
    result = launch("slurm.sh", **variables)
    assert result.returncode == 0, result.stderr
    assert f"{LAUNCH.parent}{extras}\nsbatch" in result.stdout


@pytest.fixture
def start_gpus(tmp_path):
    """`start_gpus(program)`: gpus.sh with two processes that run a program of the shell."""
    bin_folder = tmp_path / "venv/bin"
    bin_folder.mkdir(parents=True)
    for name in ("pip", "python"):
        (bin_folder / name).touch()
        (bin_folder / name).chmod(0o755)
    (tmp_path / "venv/.installed[gpu]").touch()  # newer than pyproject.toml

    def start_gpus(program):
        (bin_folder / "python").write_text(f"#!/bin/bash\n{program}\n")
        names = {"GPUS": "2", "VENV": str(tmp_path / "venv"), "PYTHON": sys.executable}
        return subprocess.Popen(
            [LAUNCH / "gpus.sh"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(LAUNCH.parent)} | names,
            start_new_session=True,
        )

    return start_gpus


@pytest.mark.parametrize("failing", [0, 1])
def test_gpus_ends_with_the_status_of_a_process_that_fails(start_gpus, failing):
    process = start_gpus(f"[ $JAX_PROCESS_ID != {failing} ] || exit 2")
    assert process.wait(timeout=60) == 2


SAVING = """
import os, pathlib, sys, time
from lungseg_jax.runtime import signals

def touch(name):
    pathlib.Path(name + os.environ["JAX_PROCESS_ID"]).touch()

signals.install_handlers()
try:
    with signals.defer_signals():
        touch("ready-")
        while not signals.requested():
            time.sleep(0.01)
        time.sleep(0.3)
        touch("saved-")
except signals.Stopped as e:
    sys.exit(e.status)
"""


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_gpus_passes_signals_on_and_waits(send, start_gpus, tmp_path):
    """Also one that reaches all processes, as by timeout(1), and so comes twice."""
    (tmp_path / "saving.py").write_text(SAVING)
    process = start_gpus(f"exec {sys.executable} saving.py")
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    send(process.pid, signal.SIGTERM)  # a job in the background ignores SIGINT
    assert process.wait(timeout=60) == 75
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_the_jobset_describes_a_job_that_can_start_and_resume():
    jobset = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet" and jobset["spec"]["failurePolicy"]["maxRestarts"]
    assert jobset["spec"]["network"]["enableDNSHostnames"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    variables = {row["name"]: row for row in container["env"]}
    assert replicated["replicas"] == 1 and job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert variables["JAX_NUM_PROCESSES"]["value"] == str(job["parallelism"])
    # JobSet starts pods again, and all of them together.
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0
    # Pods are called JOBSET-JOB-REPLICA-INDEX, in the domain of the JobSet.
    name = jobset["metadata"]["name"]
    host, port = variables["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert container["ports"] == [{"containerPort": int(port)}]
    index = variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_jobset_gives_options_that_exist_and_shared_folders():
    text = (LAUNCH / "kubernetes.yaml").read_text()
    words = [
        line.strip()[2:] for line in text.splitlines() if line.strip()[:4] == "- --"
    ]
    options = dict(word[2:].partition("=")[::2] for word in words)
    keys = {f"config.{knob.name}" for knob in knobs.all_knobs()}
    assert options.keys() <= {*train.FLAGS, "config", *keys}
    assert "distributed" in options
    for name in ("workdir", "config.data.dir", "config.cache_dir"):
        assert options[name].startswith("/shared/")


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
        write_program(tmp_path / name, line)
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
        ("gpus.sh", [], "nvidia-smi finds no GPU here"),
    ],
)
def test_reports_a_missing_tool_or_argument(script, words, message, tmp_path):
    for tool in ("bash", "dirname", "wc"):  # a PATH without sbatch and gcloud
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    result = launch(script, *words, PATH=str(tmp_path))
    assert result.returncode == 2
    assert message in result.stderr and "error: " in result.stderr
