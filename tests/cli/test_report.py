"""`lungseg report`: the page of a run, written again by a command."""

import shutil


def test_writes_the_page_again(trained_run, lungseg_here, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/report")
    done = lungseg_here("report", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("report: run/report/index.html\n")
    page = (tmp_path / "run/report/index.html").read_text()
    assert "smoke: conv U-Net on phantom data" in page


def test_refuses_what_is_not_a_run(lungseg_here, labelled_folder, tmp_path):
    done = lungseg_here("report", labelled_folder)
    assert done.returncode == 2 and "is not a run folder" in done.stderr
    done = lungseg_here("report", tmp_path / "rnu")
    assert done.returncode == 2 and "rnu is not a run folder" in done.stderr
