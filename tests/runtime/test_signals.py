"""Signals: training saves and prints how to resume; other commands exit at once."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import run_command  # of tests/resilience/

from lungseg_jax.runtime import signals
from lungseg_jax.training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
COMMAND = [
    "-m",
    "lungseg_jax.main",
    "--config=configs/smoke.py",
    "--config.model.name=conv",
    "--config.model.filters=1",
    "--config.model.levels=2",
    "--config.data.image_size=32",
    "--config.data.phantom_slices=12",
    "--config.schedule.cycles=1",
    "--config.train.total_steps=400",
    "--config.train.save_every=1000",
    "--config.train.validate_every=100",
    "--config.train.log_every=7",
]


started = []


def start(*words, cache=ROOT):
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


@pytest.fixture(autouse=True)
def children_receive_signals():
    """A child ignores what its parent ignores, as jobs in the background or under nohup."""
    ignored = [n for n in signals.STATUS if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)  # not inherited
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    while started:
        started.pop().kill()  # if a test has failed


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("uninterrupted") / "run")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(ROOT)
        m.setenv("XDG_CACHE_HOME", str(cache))
        done = run_command("train", [*COMMAND[2:], f"--workdir={folder.path}"], m)
    assert done.returncode == 0, done.stderr
    return folder


def wait_for_rows(folder, process):
    while not (folder.metrics.exists() and len(folder.read_metrics()) > 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def content(folder):
    rows = folder.read_metrics()
    for row in rows:
        row.pop("steps_per_second", None)
    manifest = json.loads((folder.checkpoints / "400/seal/metadata").read_text())
    return rows, manifest, json.loads(folder.evaluation.read_text())


@pytest.mark.parametrize(
    "sent,status",
    [
        (signal.SIGTERM, 75),
        (signal.SIGINT, 130),
        # Handled by the same code; each takes a quarter of a minute.
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_training_saves_and_prints_a_command_that_resumes_it(
    sent, status, uninterrupted, cache, tmp_path
):
    folder = RunFolder(tmp_path / "run")
    process = start(*COMMAND, f"--workdir={folder.path}", cache=cache)
    wait_for_rows(folder, process)
    process.send_signal(sent)
    if sent == signal.SIGHUP:  # as when a session ends
        time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    then = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert time.monotonic() - then < 10
    assert f"stopped by {sent.name}" in err and "Traceback" not in err
    step = int(re.search(r"saved after step (\d+) of 400", out).group(1))
    assert (folder.checkpoints / str(step)).is_dir()

    if sent != signal.SIGTERM:
        return
    python, *words = shlex.split(err.strip().splitlines()[-1])
    assert python == "python"
    process = start(*words, cache=cache)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert f"resuming after step {step}" in out
    assert content(folder) == content(uninterrupted)


def test_a_signal_before_the_training_ends_the_command(cache, tmp_path):
    for delay in (0.2, 0.8):
        folder = tmp_path / f"run-{delay}"
        process = start(*COMMAND, f"--workdir={folder}", cache=cache)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode in (130, -2)  # -2: Python was still starting
        assert process.returncode == -2 or "Traceback" not in err


BUSY = """
import hashlib
from lungseg_jax.runtime import signals
signals.install_handlers()
signals.PATIENCE_S = 0.5
with {block}:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # no bytecode, like a compilation
"""


def busy(block):
    process = start("-c", BUSY.format(block=block))
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # now it runs native code
    return process


def test_a_second_signal_ends_native_code_at_once():
    """But for the first one that arrives twice, as by timeout(1)."""
    process = busy("signals.defer_signals()")
    process.send_signal(signal.SIGTERM)
    assert "saving after this step" in process.stderr.readline() + (
        process.stderr.readline()
    )
    process.send_signal(signal.SIGTERM)
    time.sleep(signals.TWICE_S + 0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == 75
    process.communicate()


def test_the_first_signal_ends_native_code_soon_where_nothing_is_saved():
    process = busy("signals.raise_on_signal('type more')")
    process.send_signal(signal.SIGINT)
    assert process.wait(9) == 130
    process.communicate()


def test_another_signal_does_not_interrupt_the_clean_up(monkeypatch):
    monkeypatch.setattr(signals, "_raises", True)
    monkeypatch.setattr(signals, "_received", None)
    with pytest.raises(signals.Stopped, match="SIGUSR1") as e:
        signals._handle(signal.SIGUSR1, None)
    assert e.value.status == 75
    signals._handle(signal.SIGTERM, None)


def test_a_deferred_signal_stops_at_the_end_of_the_block():
    code = BUSY.replace("10**9", "10**6") + "print('continued')"
    process = start("-c", code.format(block="signals.defer_signals()"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert "Stopped: SIGTERM" in err and "continued" not in out


def test_a_signal_ignored_before_stays_ignored():
    code = BUSY.replace("10**9", "10**6") + "print('continued')"
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + code
    process = start("-c", code.format(block="signals.defer_signals()"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=30)
    assert out == "continued\n", err


def test_a_signal_in_a_callback_of_the_collector_stops_without_a_traceback():
    code = (
        "import gc, os, signal, time\n"
        "from lungseg_jax.runtime import signals\n"
        "def kill(phase, info):\n"
        "    gc.callbacks.clear()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "signals.install_handlers()\n"
        "gc.callbacks.append(kill)\n"
        "with signals.raise_on_signal('type more'):\n"
        "    gc.collect()\n"
        "    time.sleep(30)\n"
        "print('survived')\n"
    )
    out, err = start("-c", code).communicate(timeout=60)
    assert (out, err) == ("", "\nstopped by SIGTERM; type more\n")


def test_a_signal_while_python_ends_stops_without_a_traceback():
    process = start(
        "-c",
        "import atexit, contextlib, os, signal, time\n"
        "from lungseg_jax.runtime import signals\n"
        "signals.install_handlers()\n"
        "@atexit.register\n"
        "def end():\n"
        "    with contextlib.suppress(signals.Stopped), signals.raise_on_signal(''):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    time.sleep(0.5)  # for the thread that receives signals\n",
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_forced_exit_prints_the_last_words():
    process = busy("signals.raise_on_signal('type more')")
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM; type more" in process.communicate(timeout=30)[1]


@pytest.mark.parametrize(
    "streams",
    ["| head -1", "> /dev/full", pytest.param(">&- 2>&-", marks=pytest.mark.slow)],
)
def test_a_training_continues_when_its_output_has_no_reader(streams, cache, tmp_path):
    words = [*COMMAND, "--config.train.total_steps=20", f"--workdir={tmp_path}/run"]
    command = f"{shlex.join([sys.executable, *words])} {streams}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (tmp_path / "run/report/index.html").exists()
