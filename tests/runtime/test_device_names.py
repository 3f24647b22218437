"""Names of devices, as users type them."""

import pytest

from lungseg_jax.runtime.device_names import parse_device
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "text,expected",
    [("cpu", ("cpu", None)), ("gpu:1", ("gpu", 1)), ("tpu:0", ("tpu", 0)), ("", None)],
)
def test_parses_a_name(text, expected):
    assert parse_device(text) == expected
    assert expected is None or str(parse_device(text)) == text


@pytest.mark.parametrize("text", ["cuda", "gpu:", "gpu:-1", "gpu:x", "GPU", "cpu,gpu"])
def test_refuses_other_names(text):
    with pytest.raises(UserError, match=f"--device={text} is not"):
        parse_device(text)
