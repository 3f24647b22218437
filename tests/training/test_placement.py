"""Where training slices are: the first placement that fits, or the one asked for."""

import types

import jax
import numpy as np
import pytest
from tiny_run import tiny_config, train

from lungseg_jax.runtime import memory
from lungseg_jax.runtime.files import read_json
from lungseg_jax.training import placement
from lungseg_jax.training.placement import choose_placement
from lungseg_jax.training.run_folder import RunFolder


class Slices:
    """A thousand slices of a megabyte."""

    slice_bytes = 1_000_000

    def __len__(self):
        return 1000


@pytest.mark.parametrize(
    "room,devices,chosen",
    [
        (1e9, 1, "copied"),
        (1e9, 8, "copied"),
        (0.99e9, 1, "streamed"),
        (0.99e9, 8, "sharded"),
        (141e6, 8, "sharded"),  # 125 slices, and twice a batch of 8
        (140e6, 8, "streamed"),
        (0, 8, "streamed"),
    ],
)
def test_chooses_the_first_that_fits(room, devices, chosen):
    found = choose_placement("auto", Slices(), batch_size=8, devices=devices, room=room)
    assert found.name == chosen
    assert "1 GB" in found.reason and found.slice_bytes == 1_000_000


@pytest.mark.parametrize("asked", ["copied", "sharded", "streamed"])
def test_a_placement_that_is_asked_for_is_taken(asked):
    found = choose_placement(asked, Slices(), batch_size=8, devices=1, room=0)
    assert found.name == asked
    assert str(found).endswith(f"({asked}), as data.placement={asked} asks")


def test_slices_may_fill_a_quarter_of_the_smallest_memory(monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: 1000)
    assert placement.room_for_slices() == 250 // jax.local_device_count()
    monkeypatch.setattr(memory, "device_bytes", lambda device: 400)
    assert placement.room_for_slices() == 100


def test_a_container_has_the_memory_of_its_limit(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", [limit])
    physical = memory.host_bytes()
    limit.write_text("max\n")
    assert memory.host_bytes() == physical
    limit.write_text("12345\n")
    assert memory.host_bytes() == 12345


def test_a_device_that_knows_its_memory_is_believed():
    gpu = types.SimpleNamespace(memory_stats=lambda: {"bytes_limit": 7})
    assert memory.device_bytes(gpu) == 7
    cpu = types.SimpleNamespace(memory_stats=lambda: None)
    expected = memory.host_bytes() // jax.local_device_count()
    assert memory.device_bytes(cpu) == expected


def test_the_choice_is_said_and_recorded(
    finished_run, tiny_cache, tmp_path, monkeypatch, capsys
):
    assert read_json(finished_run.run)["placement"]["name"] == "copied"
    monkeypatch.setattr("lungseg_jax.experiment.room_for_slices", lambda: 0)
    folder = RunFolder(tmp_path / "run")
    c = tiny_config(tiny_cache, **{"train.total_steps": 2, "schedule.cycles": 1})
    train(c, folder)
    record = read_json(folder.run)["placement"]
    assert record["name"] == "streamed"
    # 32x32 pixels: int16, and float32 as masks are averaged over 16 pixels a side.
    assert record["slice_bytes"] == 32 * 32 * (2 + np.dtype(np.float32).itemsize)
    line = f"training slices: read from disk, batch by batch (streamed), {record['reason']}"
    assert line in capsys.readouterr().out.splitlines()
