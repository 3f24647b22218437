"""`lungseg evaluate`: scores of a folder, as JSON and as a page."""

import json


def test_writes_the_scores_of_a_folder(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    file, page = tmp_path / "scores.json", tmp_path / "page"
    inputs = [f"--run={trained_run}", f"--data={labelled_folder}"]
    outputs = [f"--json={file}", f"--report={page}"]
    done = lungseg_here("evaluate", *inputs, *outputs)
    assert done.returncode == 0, done.stderr
    scores = json.loads(file.read_text())
    assert scores["n"] == 3 and scores["members"].keys() == {"6", "12"}
    assert scores["trained_on"] == 0 and scores["flips"] is False
    assert f"{scores['ensemble']['iou_pooled']:.4f}" in done.stdout
    assert {"index.html", "slices.csv", "expected.png"} <= {
        p.name for p in page.iterdir()
    }
    for existing in (outputs, outputs[1:]):
        again = lungseg_here("evaluate", *inputs, *existing)
        assert again.returncode == 2 and "--overwrite" in again.stderr


def test_scores_that_were_written_before_a_stop_are_not_denied(
    trained_run, labelled_folder, lungseg_here, tmp_path, monkeypatch
):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lungseg_jax.reporting.folder_page.write_report", stop)
    outputs = [f"--json={tmp_path}/scores.json", f"--report={tmp_path}/page"]
    words = [f"--run={trained_run}", f"--data={labelled_folder}", *outputs]
    done = lungseg_here("evaluate", *words)
    assert done.returncode == 130 and (tmp_path / "scores.json").exists()
    assert "files already written are complete" in done.stderr


def test_members_last_uses_only_the_last_snapshot(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    file = tmp_path / "scores.json"
    words = [f"--run={trained_run}", f"--data={labelled_folder}", "--members=last"]
    assert lungseg_here("evaluate", *words, f"--json={file}").returncode == 0
    scores = json.loads(file.read_text())
    assert scores["members"].keys() == {"12"} and scores["choices"] == {}
    cleaned = scores["postprocessing"]["scores"]
    assert cleaned["none"]["iou_pooled"] == scores["members"]["12"]["iou_pooled"]


def test_refuses_gray_values(trained_run, pair_folder, lungseg_here):
    folder = pair_folder(["a", "b"], dtype="uint8")
    done = lungseg_here("evaluate", f"--run={trained_run}", f"--data={folder}")
    assert done.returncode == 2 and f"{folder} has gray values" in done.stderr


def test_outputs_replace_neither_the_run_nor_each_other(
    trained_run, labelled_folder, lungseg_here, tmp_path
):
    words = ["evaluate", f"--run={trained_run}", f"--data={labelled_folder}"]
    before = (trained_run / "evaluation.json").read_bytes()
    for name in ("evaluation.json", "checkpoints/12/scores.json"):
        done = lungseg_here(*words, f"--json={trained_run / name}", "--overwrite")
        assert done.returncode == 2 and "input" in done.stderr
    assert (trained_run / "evaluation.json").read_bytes() == before
    page = tmp_path / "page"
    done = lungseg_here(*words, f"--report={page}", f"--json={page}/index.html")
    assert done.returncode == 2 and "in the folder of the page" in done.stderr
    assert not page.exists()
