"""Manifests notice changed, missing and renamed arrays, and damage to themselves."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.checkpointing.manifest import (
    CorruptCheckpointError,
    dtype_and_shape,
    make_manifest,
    named_leaves,
    read_manifest,
    verify_arrays,
)
from lungseg_jax.runtime.errors import UserError

TREE = {
    "params": {"conv": {"kernel": np.ones((3, 2), np.float32)}},
    "opt_state": (np.arange(4), {"count": np.int32(7)}),
}
WHERE = Path("checkpoints/7")


def test_leaves_are_named_by_their_path():
    assert list(named_leaves(TREE)) == [
        "opt_state/0",
        "opt_state/1/count",
        "params/conv/kernel",
    ]
    assert named_leaves(TREE)["params/conv/kernel"].shape == (3, 2)


def test_dtype_and_shape():
    assert dtype_and_shape(jnp.zeros((3, 2), jnp.bfloat16)) == "bfloat16[3, 2]"
    assert dtype_and_shape(np.float32(1)) == "float32[]"


def test_intact_arrays_pass_and_a_part_of_them(tmp_path):
    arrays = make_manifest(7, TREE, {})["arrays"]
    verify_arrays(arrays, TREE, WHERE)
    verify_arrays(arrays, {"params": TREE["params"]}, WHERE)


@pytest.mark.parametrize(
    "tree,reason",
    [
        ({"params": {"conv": {"kernel": np.zeros((3, 2), "f4")}}}, "has other values"),
        ({"params": {"conv": {"kernel": np.ones((2, 3), "f4")}}}, "not what was saved"),
        ({"params": {"conv": {"kernel": np.ones((3, 2), "f8")}}}, "not what was saved"),
        ({"params": {"conv": {"bias": np.ones(2, "f4")}}}, "not what was saved"),
    ],
)
def test_other_arrays_are_refused(tree, reason):
    arrays = make_manifest(7, TREE, {})["arrays"]
    with pytest.raises(CorruptCheckpointError, match=reason) as e:
        verify_arrays(arrays, tree, WHERE)
    assert str(WHERE) in e.value.what and "params/conv/" in e.value.what


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_arrays_that_are_not_finite(value):
    tree = {"a": np.ones(2, np.float32), "b": np.array([0.0, value], np.float32)}
    with pytest.raises(UserError, match="after step 7 b is not finite") as e:
        make_manifest(7, tree, {})
    assert "--config.schedule.peak" in e.value.remedy


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "7" / "seal" / "metadata"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(make_manifest(7, TREE, {"loss": [0.5]})))
    return path


def test_a_manifest_is_read_back(file):
    manifest = read_manifest(file, 7)
    assert manifest["step"] == 7 and manifest["notes"] == {"loss": [0.5]}
    verify_arrays(manifest["arrays"], TREE, file.parent.parent)


def test_refuses_a_manifest_of_another_step(file):
    with pytest.raises(CorruptCheckpointError, match="its manifest is damaged"):
        read_manifest(file, 8)


@pytest.mark.parametrize("edit", [{"notes": {}}, {"step": 8}, {"sha256": "0"}])
def test_refuses_an_edited_manifest(file, edit):
    file.write_text(json.dumps(json.loads(file.read_text()) | edit))
    with pytest.raises(CorruptCheckpointError, match="its manifest is damaged"):
        read_manifest(file, 7)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff", b"[" * 10**5])
def test_refuses_an_unreadable_manifest(file, content):
    file.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match="manifest cannot be read"):
        read_manifest(file, 7)
    file.unlink()
    with pytest.raises(CorruptCheckpointError, match="manifest cannot be read"):
        read_manifest(file, 7)
