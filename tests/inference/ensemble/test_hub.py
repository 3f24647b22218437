"""Bundles on the Hugging Face Hub, by a stand-in for it: a folder for each revision."""

import importlib.util
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lungseg_jax.inference.ensemble import bundle
from lungseg_jax.inference.ensemble.hub import locate_or_download, push_bundle
from lungseg_jax.inference.ensemble.initial_weights import load_initial_weights
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.runtime.errors import UserError

RECORD = {
    "name": "tiny",
    "data": {"variant": "phantom", "dtype": "int16", "fingerprint": "abc"},
    "versions": {"lungseg-jax": "0.2.0"},
    "evaluation": None,
}


class Hub:
    """The functions of huggingface_hub that are used, on folders."""

    def __init__(self, root):
        self.root, self.private, self.downloads = root, {}, []

    def snapshot_download(self, repo_id, *, revision=None, allow_patterns):
        source = self.root / repo_id / (revision or "main")
        if not source.exists():
            raise LookupError(f"404: {repo_id}")
        self.downloads.append((repo_id, revision))
        target = self.root / "cache" / repo_id / (revision or "main")
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.name in allow_patterns:
                shutil.copy(file, target)
        return str(target)

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.private.setdefault(repo_id, private)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        assert repo_id in self.private and commit_message
        target = self.root / repo_id / "main"
        target.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            shutil.copy(folder_path / name, target)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    for name in ("snapshot_download", "create_repo", "upload_folder"):
        monkeypatch.setattr(f"huggingface_hub.{name}", getattr(hub, name))
    return hub


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "lungs"
    bundle.write_bundle(folder, trained, RECORD)
    (folder / "notes.txt").touch()  # which stays on the machine
    return folder


def test_a_pushed_bundle_is_used_by_its_address(hub, exported, trained, slices):
    assert push_bundle(exported, "org/lungs") == "https://huggingface.co/org/lungs"
    assert hub.private == {"org/lungs": True}
    uploaded = {file.name for file in (hub.root / "org/lungs/main").iterdir()}
    assert uploaded == {*bundle.FILES, bundle.SUMS}
    image = next(slices(1)).image
    actual, expected = load("hf://org/lungs")(image), LungSegmenter(trained)(image)
    np.testing.assert_array_equal(actual.probability, expected.probability)
    assert list(load("hf://org/lungs", members="last").trained.members) == ["30"]


def test_a_training_starts_from_it(hub, exported, trained):
    push_bundle(exported, "org/lungs")
    variables, about = load_initial_weights(
        "hf://org/lungs", trained.model, trained.preprocessing, {}
    )
    assert about["path"] == "hf://org/lungs" and about["member"] == "30"
    jax.tree.map(np.testing.assert_array_equal, variables, trained.members["30"])


def test_a_revision_is_downloaded(hub, exported):
    shutil.copytree(exported, hub.root / "org/lungs/v1.0")
    folder = locate_or_download("hf://org/lungs@v1.0")
    assert (folder / "README.md").exists()
    assert hub.downloads == [("org/lungs", "v1.0")]


def test_only_the_files_of_a_bundle_are_downloaded(hub, exported):
    push_bundle(exported, "org/lungs")
    (hub.root / "org/lungs/main/weights.pkl").touch()
    names = {file.name for file in locate_or_download("hf://org/lungs").iterdir()}
    assert names == {*bundle.FILES, bundle.SUMS}


def test_checksums_are_verified_after_the_download(hub, exported):
    push_bundle(exported, "org/lungs")
    program = (
        hub.root / "org/lungs/main/program.stablehlo"
    )  # which `load` does not read
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(UserError, match="hf://org/lungs: .*program.stablehlo") as e:
        load("hf://org/lungs")
    assert "remove it from the cache" in e.value.remedy


def test_what_is_not_a_bundle_is_refused(hub, exported):
    shutil.copytree(exported, hub.root / "org/lungs/main")
    (hub.root / "org/lungs/main/bundle.json").unlink()
    with pytest.raises(UserError, match="hf://org/lungs is not a bundle"):
        load("hf://org/lungs")


def test_a_failed_download_is_a_user_error(hub):
    with pytest.raises(UserError, match="cannot be downloaded: LookupError: 404") as e:
        load("hf://org/lugns")
    assert "hf auth login" in e.value.remedy


def test_a_failed_push_leaves_the_bundle(hub, exported, monkeypatch):
    def refuse(repo_id, **options):
        raise PermissionError("401")

    monkeypatch.setattr("huggingface_hub.create_repo", refuse)
    with pytest.raises(UserError, match="is complete, but cannot be pushed to org/l: "):
        push_bundle(exported, "org/l")
    assert bundle.verify_bundle(exported)


@pytest.mark.parametrize("address", ["hf://", "hf://lungs", "hf://a/b/c", "hf://a b/c"])
def test_refuses_addresses_without_a_repository(hub, address):
    with pytest.raises(UserError, match="does not name a repository") as e:
        load(address)
    assert e.value.rule == "ORG/NAME."


def test_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name == "huggingface_hub" else find_spec(name),
    )
    with pytest.raises(UserError, match="hf://org/lungs needs huggingface_hub") as e:
        load("hf://org/lungs")
    assert e.value.remedy == "pip install 'lungseg_jax[hub]'"


def test_local_paths_need_no_hub(exported, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: pytest.fail(name))
    assert locate_or_download(exported) == exported
    assert locate_or_download("~/lungs") == Path("~/lungs").expanduser()
