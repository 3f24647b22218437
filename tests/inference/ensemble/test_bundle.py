"""A bundle gives the results of its run, with and without this package."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lungseg_jax.inference.ensemble import bundle
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.metrics.calibration import apply_temperature
from lungseg_jax.runtime.errors import UserError

RECORD = {
    "name": "tiny",
    "data": {
        "variant": "phantom",
        "dtype": "int16",
        "fingerprint": "abc",
        "domain": "HU",
    },
    "versions": {"lungseg-jax": "0.1.0"},
    "evaluation": None,
}


PREPROCESSING = {"preprocessing": "hu", "image_size": 32, "window_hu": [0, 1]}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "lungs"
    bundle.write_bundle(folder, trained, RECORD)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of the bundle, which tests may damage."""
    return shutil.copytree(exported, tmp_path / "lungs")


def test_a_bundle_gives_the_results_of_its_run(folder, trained, slices):
    images = np.stack([image_slice.image for image_slice in slices(3)])
    expected, actual = LungSegmenter(trained)(images), load(folder)(images)
    for field in ("mask", "probability", "uncertainty", "expected_iou", "review"):
        np.testing.assert_array_equal(getattr(actual, field), getattr(expected, field))
    assert load(folder).settings == trained.settings()


def test_loads_some_members_of_a_bundle(folder, trained, slices):
    image = next(slices(1)).image
    last = load(folder, members="last")
    assert list(last.trained.members) == ["30"] and last.settings.temperature == 2.0
    expected = LungSegmenter(trained.subset(["30"]))(image)
    np.testing.assert_array_equal(last(image).mask, expected.mask)
    with pytest.raises(UserError, match="average"):
        load(folder, members="average")


def test_the_card_states_the_settings_of_its_members(trained, tmp_path):
    bundle.write_bundle(tmp_path / "last", trained.subset(["30"]), RECORD)
    card = (tmp_path / "last/README.md").read_text()
    assert "A U-Net with conv blocks" in card
    assert 'Clean-up of masks: "fill_holes"' in card and "Temperature 2.000" in card
    assert "2.000 was fitted on 5 validation slices" in card
    # The threshold applies to the mean before calibration; the card converts it.
    cut = dataclasses.replace(trained, threshold=0.9)
    bundle.write_bundle(tmp_path / "cut", cut, RECORD)
    expected = apply_temperature(np.float32([0.9]), 1.5)[0]
    assert (
        f"mask = probability > {expected:.4g}"
        in (tmp_path / "cut/README.md").read_text()
    )
    # A run that was stopped before its settings were tuned.
    bundle.write_bundle(tmp_path / "b", dataclasses.replace(trained, tuning={}), RECORD)
    assert "Nothing was tuned" in (tmp_path / "b/README.md").read_text()
    assert load(tmp_path / "b").settings.review_below is None


WITHOUT_PACKAGE = """
import pathlib, sys, jax, numpy as np
program = jax.export.deserialize(pathlib.Path(sys.argv[1]).read_bytes())
probability, information = program.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], probability=probability, information=information)
assert not any(name.startswith(("lungseg", "flax", "optax")) for name in sys.modules)
"""


@pytest.mark.parametrize("n", [1, 3])
def test_the_program_runs_without_this_package(folder, trained, slices, tmp_path, n):
    """Slices of the network's size are not scaled, so the outputs can be compared."""
    images = np.stack([image_slice.image for image_slice in slices(n, shape=(32, 32))])
    np.save(tmp_path / "in.npy", images.astype(np.float32))
    files = [folder / "program.stablehlo", tmp_path / "in.npy", tmp_path / "out.npz"]
    command = [sys.executable, "-c", WITHOUT_PACKAGE, *map(str, files)]
    subprocess.run(command, check=True, cwd=tmp_path)
    outputs, expected = np.load(tmp_path / "out.npz"), LungSegmenter(trained)(images)
    np.testing.assert_allclose(outputs["probability"], expected.probability, atol=1e-5)
    np.testing.assert_allclose(
        outputs["information"], expected.mutual_information, atol=1e-5
    )


def test_the_sample_of_the_documentation_runs(folder, monkeypatch):
    page = Path(__file__).parents[3] / "docs/how-to/share.md"
    (sample,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    monkeypatch.chdir(folder.parent)
    names = {}
    exec(sample, names)
    for output in ("probability", "mutual_information"):
        assert names[output].shape == (1, 32, 32)


def test_the_program_of_the_notebooks_preprocessing(trained, tmp_path):
    import jax

    from lungseg_jax.inference.ensemble.stablehlo import export_program
    from lungseg_jax.models import make_model
    from lungseg_jax.models.variables import init_variables

    members = {"1": init_variables(make_model(**trained.model), channels=3, seed=0)}
    preprocessing = dataclasses.replace(trained.preprocessing, kind="seed")
    seed = dataclasses.replace(
        trained, members=members, preprocessing=preprocessing, tuning={}
    )
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    program = jax.export.deserialize(bytearray(export_program(seed)))
    probability, _ = program.call(images)
    model = make_model(**trained.model)
    expected = jax.nn.sigmoid(model.apply(members["1"], images, train=False))
    np.testing.assert_allclose(probability, expected, atol=1e-5)


def test_checksums_have_the_format_of_sha256sum(folder):
    rows = [
        line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()
    ]
    assert {name for _, name in rows} == {
        path.name for path in folder.iterdir() if path.name != "SHA256SUMS"
    }
    for digest, name in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(bundle.verify_bundle(folder)) == {name for _, name in rows} | {
        "SHA256SUMS"
    }


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.SUMS])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_verification_finds_damage(folder, name, damage):
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content if damage == "flip" else content[:-9])
    with pytest.raises(UserError):
        bundle.verify_bundle(folder)


def test_refuses_damaged_weights(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        load(folder)


def test_refuses_an_edited_description(folder):
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.1'))
    with pytest.raises(UserError, match="bundle.json is damaged"):
        load(folder)


def write_sums(folder):
    """Write the checksums that the files of a bundle have now."""
    (folder / "SHA256SUMS").write_text(bundle._checksums(folder))


def test_refuses_a_later_version(folder):
    path = folder / "bundle.json"
    description = {"version": bundle.VERSION + 1, "networks": []}
    path.write_text(json.dumps(description))
    write_sums(folder)
    with pytest.raises(UserError, match=f"version {bundle.VERSION + 1}"):
        load(folder)


def test_refuses_to_overwrite(folder, trained, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        bundle.write_bundle(folder, trained, RECORD)
    with pytest.raises(UserError, match="cannot be created"):
        bundle.require_new(folder / "README.md" / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["lungs"]


def test_a_failed_export_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "export_program", lambda trained: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bundle.write_bundle(tmp_path / "lungs", trained, RECORD)
    assert not list(tmp_path.iterdir())


def test_a_bundle_omits_the_names_of_slices(trained, tmp_path):
    scores = {f"{name}_mean": 0.9 for name in ("iou", "dice", "nsd", "hd95")}
    evaluation = {
        "n": 2,
        "split": "test",
        "split_seed": 3,
        "threshold": 0.5,
        "unit": "px",
        "tolerance": 2.0,
        "intervals_over": "slices",
        "ensemble": {"iou_pooled": 0.91234, "iou_pooled_ci95": [0.9, 0.95], **scores},
        "slices": {"Jane_Doe": {"iou": 0.5}},
    }
    bundle.write_bundle(tmp_path / "b", trained, RECORD | {"evaluation": evaluation})
    assert not any(
        b"Jane_Doe" in path.read_bytes() for path in (tmp_path / "b").iterdir()
    )
    card = (tmp_path / "b" / "README.md").read_text()
    assert "| IoU, pooled | 0.9123 | 0.9000 to 0.9500 |" in card
    assert "split seed 3" in card and "threshold 0.5" in card


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "2"},
        {"members": None},
        {"members": ["14", "14"]},
        {"model": {"colour": 1}},
        {"preprocessing": PREPROCESSING | {"preprocessing": "x"}},
        {"preprocessing": PREPROCESSING | {"image_size": 0}},
        {"preprocessing": PREPROCESSING | {"image_size": 10**6}},
        {"preprocessing": PREPROCESSING | {"window_hu": [4, 4]}},
        {"threshold": None},
        {"threshold": 10**400},  # no float is so large
        {"batch_size": 0},
        {"domain": "x"},
        {"views": {"14": 7}},
        {"tuning": None},
        {"tuning": {"choices": {"all": {"members": ["14"], "temperature": 0}}}},
    ],
)
def test_refuses_a_description_that_no_bundle_has(changes, folder):
    """Its checksums are right: others may have made it."""
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_sums(folder)
    with pytest.raises(
        UserError, match=rf"bundle\.json: {next(iter(changes))} is"
    ) as e:
        load(folder)
    assert "export" in e.value.rule


def test_refuses_a_description_of_another_kind(folder):
    (folder / "bundle.json").write_text("[]")
    write_sums(folder)
    with pytest.raises(UserError, match="version is missing"):
        load(folder)
