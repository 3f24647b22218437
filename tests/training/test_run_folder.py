"""Files of a run that others may want at the same time, and disks that are full."""

import subprocess
import sys

import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run_folder import RunFolder

CLAIM = """
import sys, time
from lungseg_jax.training.run_folder import RunFolder
with RunFolder(sys.argv[1]).claimed():
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_claimed_by_one_process_until_it_dies(tmp_path):
    folder = RunFolder(tmp_path / "run")
    other = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder.path)], stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"claimed\n"
    with pytest.raises(UserError, match=f"in use by process {other.pid} on "):
        with folder.claimed():
            pass
    other.kill()
    other.communicate()
    with folder.claimed():
        assert (folder.path / ".lock").exists()
    assert not list(folder.path.iterdir())


APPEND = """
import resource, sys
from lungseg_jax.training.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.append_metrics([{"step": 1}])
size = folder.metrics.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, size + 5))  # as a full disk
try:
    folder.append_metrics([{"step": 2}, {"step": 3}])
except OSError as e:
    print(type(e).__name__)
"""


def test_rows_are_written_all_or_none(tmp_path):
    command = [sys.executable, "-c", APPEND, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "OSError\n", done.stderr
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
