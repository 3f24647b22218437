"""`lungseg compile`: a report for devices that are not there, and its errors."""

import json

import pytest

TINY = (
    "--config=smoke",
    "--config.model.filters=1",
    "--config.model.levels=2",
    "--config.data.image_size=32",
)


@pytest.fixture(scope="module")
def reported(lungseg, tmp_path_factory):
    file = tmp_path_factory.mktemp("compile") / "report.json"
    words = (*TINY, "--config.train.batch_per_device=2", f"--json={file}")
    done = lungseg("compile", "--topology=cpu:4", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_describes_both_programs(reported):
    text, report = reported
    assert report["topology"] == "cpu:4" and report["devices"] == 4
    for name, batch_size in {"train": 8, "predict": 4}.items():
        made = report[name]
        assert made["batch_size"] == batch_size and made["fits"] is None
        assert made["flops"] > 0 and made["peak_bytes"] > made["argument_bytes"] > 0
        assert made["moved"]["padded"] >= made["moved"]["logical"] > 0
    for word in ("memory:", "moved:", "arithmetic:", "all-reduce:", "compilation:"):
        assert word in text


def test_only_the_update_has_collectives(reported):
    _, report = reported
    assert report["predict"]["collectives"] == []
    kinds = {(c["opcode"], c["dtype"]) for c in report["train"]["collectives"]}
    assert ("all-reduce", "f32") in kinds


@pytest.mark.parametrize(
    "words,message",
    [
        (["--topology=v9"], "v9 is not known"),
        (["--topology=cpu", "--config=smok"], "--config=smoke"),
        (["--topology=cpu", "--config.train.batch=4"], "train.batch_size"),
        (["--topology=cpu", "-config.schedule.peaq=4"], "schedule.peak"),
        (["--topology=cpu", "--slice=4"], "slice"),
        (["--topology=cpu", "--slices=2"], "slices=2 are fewer than a batch"),
    ],
)
def test_faulty_words_are_errors(lungseg_here, words, message):
    done = lungseg_here("compile", *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_never_overwrites_a_report(lungseg_here, tmp_path):
    file = tmp_path / "report.json"
    file.write_text("{}")
    done = lungseg_here("compile", "--topology=cpu", *TINY, f"--json={file}")
    assert done.returncode == 2 and file.read_text() == "{}"
