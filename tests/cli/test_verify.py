"""`lungseg verify`: an intact run passes, damage is reported with exit status 2."""

import shutil


def test_reports_an_intact_and_a_damaged_run(trained_run, lungseg_here, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    done = lungseg_here("verify", f"--run={tmp_path}/run")
    assert done.returncode == 0 and done.stdout.endswith("the run is intact\n")
    assert "checkpoints/6 " in done.stdout and "checkpoints/12 " in done.stdout
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write("{broken\n")
    shutil.rmtree(tmp_path / "run/checkpoints/6")
    done = lungseg_here("verify", f"--run={tmp_path}/run")
    assert done.returncode == 2 and done.stdout.count("FAULTY") == 2
    assert "metrics.jsonl is damaged" in done.stderr
    assert "checkpoints has lost 6" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_of_a_newer_version_is_not_called_damaged(
    trained_run, lungseg_here, tmp_path
):
    shutil.copytree(trained_run, tmp_path / "run")
    record = tmp_path / "run/run.json"
    newer = record.read_text().replace('"schema_version": 2', '"schema_version": 99')
    record.write_text(newer)
    done = lungseg_here("verify", f"--run={tmp_path}/run")
    assert done.returncode == 2 and "NOT USABLE HERE" in done.stdout
    assert "use a newer lungseg_jax" in done.stderr and "damaged" not in done.stderr
