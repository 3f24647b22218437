"""`lungseg doctor`: what it describes, and what it objects to."""

import shutil
from pathlib import Path

from lungseg_jax.runtime import devices, memory


def test_describes_the_machine(lungseg_here):
    done = lungseg_here("doctor")
    assert done.returncode == 0, done.stderr
    for name in ("python", "jax ", "devices", "cache", "nothing to change"):
        assert name in done.stdout


def test_objects_to_an_idle_gpu_and_to_a_full_disk(lungseg_here, monkeypatch):
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: True)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    usage = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = lungseg_here("doctor")
    assert done.returncode == 2
    assert "JAX runs on the CPU: install the extra [gpu]" in done.stderr
    assert "0.1 GB are free" in done.stderr and "nothing to change" not in done.stdout


def test_objects_to_a_platform_that_is_missing(lungseg):
    done = lungseg("doctor", JAX_PLATFORMS="cudda")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: JAX cannot use JAX_PLATFORMS=cudda:" in done.stderr
    assert "unset JAX_PLATFORMS" in done.stderr
    assert "none that JAX can use" in done.stdout and "cache" in done.stdout


def test_objects_to_a_cache_that_cannot_be_created(lungseg_here, tmp_path):
    (tmp_path / "file").touch()
    done = lungseg_here("doctor", cache=tmp_path / "file")
    assert done.returncode == 2 and "cannot be created" in done.stderr


def test_a_cache_file_may_be_deleted_meanwhile(lungseg_here, tmp_path, monkeypatch):
    file = tmp_path / "lungseg_jax/cached"
    file.parent.mkdir()
    file.write_bytes(bytes(10**7))

    def find(*_):
        yield file
        file.unlink()  # by a training
        yield file

    monkeypatch.setattr(Path, "rglob", find)
    done = lungseg_here("doctor", cache=tmp_path)
    assert done.returncode == 0 and "lungseg_jax, 0.01 GB used" in done.stdout


def test_objects_to_a_container_with_little_memory(lungseg_here, monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("1500000000\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", [limit])
    done = lungseg_here("doctor")
    assert done.returncode == 2
    assert "this machine, or its container, has 1.5 GB of memory" in done.stderr
