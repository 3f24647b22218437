"""Every benchmark can be imported, and describes itself."""

import subprocess
import sys

HELP = """
import contextlib, io, runpy, sys
from pathlib import Path

for script in sorted(Path(sys.argv.pop()).glob("*.py")):
    if "__main__" not in script.read_text():
        continue
    sys.argv, sys.path[0] = [script.name, "--help"], str(script.parent)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as e:
            assert e.code == 0, script
        else:
            raise AssertionError(script)
    assert "usage: " in output.getvalue(), script
    print(script.name)
"""


def test_all_benchmarks_have_help(request):
    folder = request.config.rootpath / "benchmarks"
    command = [sys.executable, "-c", HELP, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 20
