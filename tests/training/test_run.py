"""Reading a run: changed, damaged and newer files are refused."""

import json

import pytest
from tiny_run import stop_after, tiny_config

from lungseg_jax.checkpointing.checksums import with_checksum
from lungseg_jax.data.io import formats
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import default_config
from lungseg_jax.training.run import SCHEMA_VERSION, Run, read_intact
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.verification import verify_run


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_finished_run_has_all_its_snapshots(finished_run):
    run = Run.open(finished_run)
    assert run.snapshots == list(run.planned_snapshots) == [4, 7]
    assert run.lost_snapshots == []
    assert run.tuning["n"] == 1 and run.evaluation["n"] == 2


@pytest.mark.parametrize("file", ["config.json", "run.json"])
def test_refuses_a_changed_record(copied_run, file):
    path = copied_run.path / file
    path.write_text(path.read_text().replace("32", "64", 1))
    with pytest.raises(UserError, match=f"{file} was changed since it was written"):
        Run.open(copied_run)
    assert len(verify_run(copied_run)) > 0


@pytest.mark.parametrize("content", ["[1]", "{}", '{"config_sha256": 1}', "\xff"])
def test_refuses_a_damaged_record(copied_run, content):
    copied_run.run.write_text(content)
    with pytest.raises(UserError, match="damaged|was changed"):
        Run.open(copied_run)


@pytest.mark.parametrize("file", ["config.json", "run.json"])
def test_refuses_a_newer_schema_version(copied_run, file):
    edit_json(copied_run.path / file, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(UserError, match=f"schema version {SCHEMA_VERSION + 1}") as e:
        Run.open(copied_run)
    assert file in e.value.what
    assert f"versions 1 to {SCHEMA_VERSION}" in e.value.rule
    assert "newer lungseg_jax" in e.value.remedy


def test_ignores_recreatable_files_that_are_missing_changed_or_newer(tmp_path):
    file = tmp_path / "tuning.json"
    assert read_intact(file) is None
    content = with_checksum({"n": 1, "schema_version": SCHEMA_VERSION})
    file.write_text(json.dumps(content))
    assert read_intact(file) == content
    edit_json(file, n=2)
    assert read_intact(file) is None
    newer = with_checksum({"n": 1, "schema_version": SCHEMA_VERSION + 1})
    file.write_text(json.dumps(newer))
    assert read_intact(file) is None


def test_ignores_a_tuning_of_other_snapshots(copied_run):
    tuning = json.loads(copied_run.tuning.read_text())
    tuning["choices"]["all"]["members"] = ["4"]
    copied_run.tuning.write_text(json.dumps(with_checksum(tuning)))
    assert Run.open(copied_run).tuning == {}


def test_loading_an_unfinished_run_says_so(tiny_cache, tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    stop_after(5, tiny_config(tiny_cache), folder)
    assert list(load_run(Run.open(folder)).members) == ["4"]
    assert "not finished: it has 1 of 2 snapshots" in capsys.readouterr().out


def test_a_run_that_has_lost_all_snapshots_offers_none(tmp_path):
    config = default_config()
    config.cache_dir = str(tmp_path)
    run = Run(
        RunFolder(tmp_path), config, {}, saved_steps=[config.train.total_steps + 1]
    )
    with pytest.raises(UserError, match="lost the snapshots 200, 400, 600") as e:
        load_run(run)
    assert e.value.remedy == "train again in another folder."


def test_training_images_are_recognized_by_content_under_any_name(tmp_path):
    record = {
        "split": {"train": ["a", "b"]},
        "sha256": {"2d_images/a.tif": "1", "2d_masks/a.tif": "2"}
        | {"2d_images/b.tif": "3", "2d_images/c.tif": "4"},
    }
    digests = {"2d_images/x.tif": "1", "2d_images/y.tif": "4", "2d_masks/z.tif": "3"}
    run = Run(RunFolder(tmp_path), default_config(), record, [])
    assert run.trained_on(digests) == {"x"}


def test_training_images_have_suffixes_of_formats_that_were_added(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(formats.FORMATS, ".ome.tif", formats.FORMATS[".tif"])
    digests = {"2d_images/a.ome.tif": "1", "2d_masks/a.ome.tif": "2"}
    record = {"split": {"train": ["a"]}, "sha256": digests}
    run = Run(RunFolder(tmp_path), default_config(), record, [])
    assert run.trained_on(digests) == {"a"}
