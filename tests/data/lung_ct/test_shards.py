"""Shards are the same whichever process writes them; what fails there is told here."""

import subprocess
from subprocess import PIPE

import pytest

from lungseg_jax.data.lung_ct import builder, shards
from lungseg_jax.data.lung_ct.shards import WorkerError, make_shards, write_shards
from lungseg_jax.data.pairs import find_pairs
from lungseg_jax.runtime.errors import UserError


@pytest.fixture
def folder(pair_folder, monkeypatch):
    monkeypatch.setattr(builder, "SLICES_PER_SHARD", 2)
    return pair_folder(["a", "b", "c", "d", "e"])


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(shards, "useful_processes", lambda _: 2)


def test_any_number_of_processes_writes_the_same_bytes(folder, tmp_path, monkeypatch):
    pairs, written, advanced = find_pairs(folder), {}, []
    for processes in (1, 2):
        parts = make_shards(tmp_path / str(processes), "folder_int16", pairs)
        monkeypatch.setattr(shards, "useful_processes", lambda _, n=processes: n)
        write_shards(parts, lambda: advanced.append(1))
        written[processes] = [shard.path.read_bytes() for shard in parts]
    assert len(written[1]) == 3 and len(advanced) == 2 * len(pairs)
    assert written[1] == written[2]


def test_a_slice_that_cannot_be_read_is_a_plain_error(folder, two_processes, tmp_path):
    pairs = find_pairs(folder)
    pairs[3].mask.write_bytes(b"no image")
    parts = make_shards(tmp_path / "shards", "folder_int16", pairs)
    with pytest.raises(UserError, match="d.tif is damaged") as e:
        write_shards(parts, lambda: None)
    assert e.value.rule and e.value.remedy
    assert not parts[1].path.exists()


def test_a_process_that_fails_says_why(folder, two_processes, tmp_path):
    parts = make_shards(tmp_path / "shards", "unknown", find_pairs(folder))
    with pytest.raises(WorkerError, match="KeyError: 'unknown'"):
        write_shards(parts, lambda: None)


@pytest.mark.parametrize("early", [True, False])
def test_a_killed_process_is_a_plain_error(
    early, folder, two_processes, tmp_path, monkeypatch
):
    def start():
        program = "kill -9 $$" if early else "read line; kill -9 $$"
        pipes = {"stdin": PIPE, "stdout": PIPE, "text": True}
        process = subprocess.Popen(["sh", "-c", program], **pipes)
        if early:
            process.wait()
        return process

    monkeypatch.setattr(shards, "_start_worker", start)
    parts = make_shards(tmp_path / "shards", "folder_int16", find_pairs(folder))
    with pytest.raises(UserError, match=r"killed by signal 9 \(Killed\)") as e:
        write_shards(parts, lambda: None)
    assert "memory" in e.value.remedy


def test_a_process_that_cannot_be_started_ends_the_others(
    folder, two_processes, tmp_path, monkeypatch
):
    started = []

    def start():
        if started:
            raise BlockingIOError("no more processes")
        started.append(
            subprocess.Popen(["sleep", "60"], stdin=PIPE, stdout=PIPE, text=True)
        )
        return started[0]

    monkeypatch.setattr(shards, "_start_worker", start)
    parts = make_shards(tmp_path / "shards", "folder_int16", find_pairs(folder))
    with pytest.raises(BlockingIOError):
        write_shards(parts, lambda: None)
    assert started[0].wait() == -9


@pytest.mark.parametrize(
    "cores,count,processes", [(8, 3, 1), (8, 7, 1), (8, 8, 2), (8, 196, 8), (1, 196, 1)]
)
def test_few_shards_are_written_by_few_processes(monkeypatch, cores, count, processes):
    monkeypatch.setattr(shards.os, "cpu_count", lambda: cores)
    assert shards.useful_processes(count) == processes
