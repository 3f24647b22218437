"""Checkpoints on object storage: complete or not there, written by one process."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from lungseg_jax.checkpointing import checkpoints, remote_steps
from lungseg_jax.checkpointing.remote_checkpoints import open_checkpoints
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path

TREE = {"params": {"kernel": np.arange(3, dtype=np.float32)}}


def remote_checkpoints(folder):
    return open_checkpoints(folder, snapshots=[2, 9])


def test_keeps_the_snapshots_and_the_newest(bucket):
    folder = folder_path(f"{bucket}/kept")
    with remote_checkpoints(folder) as saved:
        saved.check_room(TREE)
        for step in (2, 4, 6, 8):
            saved.save(step, TREE, {})
    assert checkpoints.saved_steps(folder) == [2, 6, 8]
    with remote_checkpoints(folder) as saved:
        saved.save(9, TREE, {})
    assert checkpoints.saved_steps(folder) == [2, 9]
    assert checkpoints.verify_checkpoint(folder, 9) == 1


def test_a_damaged_checkpoint_is_skipped_and_replaced(bucket):
    folder = folder_path(f"{bucket}/damaged")
    with remote_checkpoints(folder) as saved:
        for step in (2, 4):
            saved.save(step, TREE, {"loss": [step]})
    (folder / "4/seal/metadata").write_bytes(b"{}")
    with pytest.raises(UserError, match=f"{folder}/4 is damaged"):
        checkpoints.verify_checkpoint(folder, 4)
    with remote_checkpoints(folder) as saved:
        step, _, notes = saved.restore(TREE)
        assert (step, notes) == (2, {"loss": [2]})
        saved.save(4, TREE, {"loss": [5]})
    with remote_checkpoints(folder) as saved:
        step, _, notes = saved.restore(TREE)
        assert (step, notes) == (4, {"loss": [5]})


def test_a_damaged_last_snapshot_does_not_end_the_run(bucket):
    folder = folder_path(f"{bucket}/last")
    with remote_checkpoints(folder) as saved:
        for step in (2, 9):
            saved.save(step, TREE, {})
    (folder / "9/seal/metadata").write_bytes(b"{}")
    with remote_checkpoints(folder) as saved:
        assert saved.restore(TREE)[0] == 2
        saved.save(6, TREE, {})
    assert checkpoints.saved_steps(folder) == [2, 6, 9]


def test_half_a_copy_does_not_exist(bucket, monkeypatch):
    folder, upload = folder_path(f"{bucket}/half"), remote_steps.upload

    def fail(file, to):
        if file.name == "manifest.ocdbt":
            raise OSError(5, "the bucket is gone")
        upload(file, to)

    monkeypatch.setattr(remote_steps, "upload", fail)
    with pytest.raises(UserError, match="the bucket is gone"):
        with remote_checkpoints(folder) as saved:
            saved.save(2, TREE, {})
    assert (folder / "2").exists() and checkpoints.saved_steps(folder) == []
    monkeypatch.setattr(remote_steps, "upload", upload)
    with remote_checkpoints(folder) as saved:
        assert saved.restore(TREE)[0] == 0
        saved.save(2, TREE, {})
    assert checkpoints.verify_checkpoint(folder, 2) == 1


PROCESS = """
import sys
import jax, numpy as np
from lungseg_jax.checkpointing.remote_checkpoints import open_checkpoints
from lungseg_jax.runtime import device_mesh, job
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path

jax.config.update("jax_cpu_collectives_implementation", "gloo")
job.initialize()
folder, sharding = folder_path(sys.argv[1]), device_mesh.replicated(device_mesh.make_mesh())
tree = device_mesh.place({"kernel": np.arange(3, dtype=np.float32)}, sharding)
zeros = device_mesh.place({"kernel": np.zeros(3, np.float32)}, sharding)
with job.primary_first():
    with open_checkpoints(folder, snapshots=[2]) as saved:
        saved.save(2, tree, {"loss": [job.is_primary()]})
with open_checkpoints(folder, snapshots=[2]) as saved:
    step, restored, notes = saved.restore(zeros)
assert restored["kernel"].sharding == sharding
print("restored", step, np.asarray(restored["kernel"]).tolist(), notes["loss"], flush=True)

job.require_common(step, "the step is")
try:
    job.require_common(step + jax.process_index(), "the step is")
except UserError as e:
    print(e.what, flush=True)

job.PATIENCE_S = 0.1
with job.ending_together():
    if not job.is_primary():
        raise UserError("its disk is full.")
    job.lowest(step)
"""


def test_one_process_writes_and_all_read(bucket):
    """And when one fails, both end, although each would wait for the other one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, f"{bucket}/job"],
            env=os.environ | job | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process, error in zip(processes, ("an exchange with", "its disk"), strict=True):
        output, errors = process.communicate(timeout=60)
        assert "restored 2 [0.0, 1.0, 2.0] [True]" in output, errors
        assert "differ: the step is 2 for one, 3 for another" in output, errors
        assert process.returncode == 2 and error in errors, errors
