"""`lungseg crossval`: options that have no effect are refused."""

import pytest


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_refuses_a_test_fraction(dashes, lungseg_here, pair_folder, tmp_path):
    folder, workdir = pair_folder(["a", "b", "c"]), tmp_path / "cv"
    words = [f"--config.data.dir={folder}", f"--workdir={workdir}"]
    done = lungseg_here("crossval", *words, f"{dashes}config.data.test_fraction=0.3")
    assert done.returncode == 2 and "test_fraction would have no effect" in done.stderr
    assert not workdir.exists()
