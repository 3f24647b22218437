"""Checksums notice any change of content, and no other."""

import hashlib

import numpy as np
import pytest

from lungseg_jax.checkpointing.checksums import (
    KEY,
    array_digest,
    file_digest,
    has_valid_checksum,
    json_digest,
    with_checksum,
)

CONTENT = {"n": 2, "scores": {"iou": [0.5, None]}, "name": "é"}


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


def test_array_digest_depends_on_values_not_on_memory_layout():
    array = np.arange(6.0).reshape(2, 3)
    digest = array_digest(array)
    assert digest == array_digest(np.asfortranarray(array))
    assert digest == array_digest(np.repeat(array, 2, axis=0)[::2])
    assert digest != array_digest(array.T) and digest != array_digest(array + 1e-9)


def test_json_digest_ignores_the_order_of_keys():
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    assert json_digest({"a": 1, "b": 2}) != json_digest({"a": 2, "b": 1})
    assert json_digest({"a": [1, 2]}) != json_digest({"a": [2, 1]})


def test_with_checksum_adds_one_key_and_replaces_an_old_checksum():
    signed = with_checksum(CONTENT)
    assert {key: value for key, value in signed.items() if key != KEY} == CONTENT
    assert KEY not in CONTENT
    assert with_checksum(signed) == signed
    edited = with_checksum(signed | {"n": 3})
    assert has_valid_checksum(edited) and edited[KEY] != signed[KEY]


def test_a_valid_checksum_survives_reordered_keys():
    signed = with_checksum(CONTENT)
    assert has_valid_checksum(signed)
    assert has_valid_checksum(dict(reversed(signed.items())))


@pytest.mark.parametrize(
    "content",
    [
        CONTENT,
        with_checksum(CONTENT) | {"n": 3},
        with_checksum(CONTENT) | {"added": 1},
        with_checksum(CONTENT) | {KEY: "0" * 64},
        {key: value for key, value in with_checksum(CONTENT).items() if key != "n"},
        {},
        [],
        None,
        "text",
    ],
)
def test_an_invalid_checksum_is_noticed(content):
    assert not has_valid_checksum(content)
