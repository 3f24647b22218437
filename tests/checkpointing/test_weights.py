"""Weights are read back bit for bit, or refused."""

import json
import struct

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lungseg_jax.checkpointing.weights import read_weights, write_weights
from lungseg_jax.runtime.errors import UserError


def variables(seed, width=3):
    rng = np.random.default_rng(seed)
    return {
        "params": {"down_1": {"kernel": rng.normal(size=(2, width)).astype("f4")}},
        "batch_stats": {"down_1": {"mean": rng.normal(size=width).astype("f4")}},
    }


NETWORKS = {"10": variables(0), "average": variables(1)}


@pytest.fixture
def file(tmp_path):
    write_weights(tmp_path / "w.safetensors", NETWORKS, {"of": ["10", "20"]})
    return tmp_path / "w.safetensors"


def test_networks_are_read_back_bit_for_bit(file):
    networks, about = read_weights(file, variables(5))
    assert about == {"of": ["10", "20"]}
    assert networks.keys() == NETWORKS.keys()
    jax.tree.map(np.testing.assert_array_equal, networks, NETWORKS)


def test_the_file_is_plain_safetensors(file):
    tensors = load_file(file)
    assert tensors.keys() == {
        f"{name}/{leaf}"
        for name in NETWORKS
        for leaf in ("params/down_1/kernel", "batch_stats/down_1/mean")
    }


def test_equal_weights_are_equal_files(file, tmp_path):
    first = file.read_bytes()
    for _ in range(8):  # the order would differ in every second one
        write_weights(tmp_path / "again", NETWORKS, {"of": ["10", "20"]})
        assert (tmp_path / "again").read_bytes() == first


def test_refuses_networks_of_another_shape(file):
    with pytest.raises(UserError, match="does not match its description"):
        read_weights(file, variables(0, width=4))


def test_refuses_a_tensor_with_the_name_of_a_network(tmp_path):
    write_weights(tmp_path / "w", {**NETWORKS, "10/params": np.zeros(2, "f4")}, {})
    with pytest.raises(UserError, match="10/params does not match its description"):
        read_weights(tmp_path / "w", variables(0))


def test_refuses_files_written_by_others_and_missing_ones(tmp_path):
    save_file({"10/params/a": np.zeros(2, "f4")}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is damaged"):
        read_weights(tmp_path / "x.safetensors", variables(0))
    with pytest.raises(UserError, match="does not exist"):
        read_weights(tmp_path / "y.safetensors", variables(0))


@given(st.data())
def test_flipped_bits_and_truncation_are_noticed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "w", NETWORKS, {"of": []})
    content = bytearray((folder / "w").read_bytes())
    (header,) = struct.unpack_from("<Q", content)
    assert json.loads(content[8 : 8 + header])
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (folder / "w").write_bytes(
        content[: data.draw(st.sampled_from([len(content), 40]))]
    )
    try:
        networks, about = read_weights(folder / "w", variables(0))
    except UserError:
        return
    # Only white space and the order of the header may change.
    jax.tree.map(np.testing.assert_array_equal, networks, NETWORKS)
    assert about == {"of": []}


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_weights(tmp_path / "file" / "w", NETWORKS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_refuses_weights_that_are_not_numbers(file):
    spoilt = variables(0)
    spoilt["batch_stats"]["down_1"]["mean"][1] = np.nan
    write_weights(file, {"10": spoilt}, {})
    with pytest.raises(UserError, match="weights that are not numbers"):
        read_weights(file, variables(5))
