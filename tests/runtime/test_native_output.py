"""What C libraries print to stderr is discarded in a block, and only there."""

import os
import subprocess
import sys

import pytest

from lungseg_jax.runtime import native_output


def write_past_python(text):
    os.write(2, text.encode())


def test_discards_in_the_block_only(capfd):
    write_past_python("before ")
    with native_output.discarded(), native_output.discarded():
        write_past_python("in it ")
    with pytest.raises(KeyError), native_output.discarded():
        raise KeyError
    write_past_python("after")
    assert capfd.readouterr().err == "before after"


def test_works_without_a_stderr():
    code = (
        "import os; os.close(2)\n"
        "from lungseg_jax.runtime import native_output\n"
        "with native_output.discarded(): print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n")
