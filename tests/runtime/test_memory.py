"""A device without enough memory is a plain error with the amounts and a remedy."""

import jax
import jax.numpy as jnp
import pytest

from lungseg_jax.runtime import memory
from lungseg_jax.runtime.errors import UserError


def test_a_real_error_of_jax_says_how_much_there_is():
    with pytest.raises(UserError) as e, memory.reported("buy more."):
        jax.block_until_ready(jnp.zeros(2**44))
    assert e.value.what == "out of memory: 65536.00 GiB were asked for."
    assert e.value.rule.startswith("cpu has ") and e.value.rule.endswith(" GiB.")
    assert e.value.remedy == "buy more."


@pytest.mark.parametrize(
    "message,asked,available",
    [
        (  # a TPU that compiles
            "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
            "Used 21.90G of 7.48G hbm. Exceeded hbm capacity by 14.42G.",
            "21.90 GiB",
            "has 7.48 GiB.",
        ),
        (
            "Allocation (size=29.49G) exceeds available HBM: "
            "program needs (29.49G) exceeds available HBM (15.75G)",
            "29.49 GiB",
            "has 15.75 GiB.",
        ),
        (  # a TPU that runs
            "Error allocating device buffer: Attempting to allocate 15.65G. That was "
            "not possible. There are 11.08G free.; (0x0x0_HBM0)",
            "15.65 GiB",
            "has 11.08 GiB left.",
        ),
        (  # a GPU, with its memory as JAX knows it
            "Out of memory while trying to allocate 7406166528 bytes.",
            "6.90 GiB",
            "has 3.00 GiB.",
        ),
        ("Out of memory while trying to allocate 12582912 bytes.", "12.00 MiB", ""),
    ],
)
def test_reads_the_amounts_from_messages(message, asked, available, monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda device: 3 * 2**30)
    with pytest.raises(UserError) as e, memory.reported("turn a knob."):
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")
    assert e.value.what == f"out of memory: {asked} were asked for."
    assert available in e.value.rule


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_an_unknown_message_is_quoted(kind, monkeypatch):
    monkeypatch.setattr(memory, "device_bytes", lambda device: 0)
    with pytest.raises(UserError) as e, memory.reported("turn a knob."):
        raise kind("RESOURCE_EXHAUSTED: no more\nbuffers")
    assert e.value.what == "out of memory: RESOURCE_EXHAUSTED: no more"
    assert not e.value.rule


def test_other_errors_of_the_device_are_bugs():
    with pytest.raises(jax.errors.JaxRuntimeError), memory.reported(""):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
