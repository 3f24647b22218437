"""A device is chosen by name, and a GPU that is not used is announced."""

import contextlib
import subprocess
import sys

import jax
import pytest

from lungseg_jax.runtime import devices
from lungseg_jax.runtime.device_names import DeviceName
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "driver,backend,asked,warns",
    [
        (True, "cpu", "", True),
        (False, "cpu", "", False),
        (True, "gpu", "", False),
        (True, "cpu", "cpu", False),  # as the user wishes
    ],
)
def test_warns_of_a_gpu_that_is_not_used(
    driver, backend, asked, warns, monkeypatch, capsys
):
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setenv("JAX_PLATFORMS", asked)
    devices.warn_of_idle_gpu()
    assert ("WARNING: there is an NVIDIA driver" in capsys.readouterr().out) == warns


CHOOSE = """
import sys
import jax
from lungseg_jax.runtime import devices
from lungseg_jax.runtime.device_names import parse_device
from lungseg_jax.runtime.errors import UserError
name = parse_device(sys.argv[1])
devices.choose(name)
try:
    devices.require(name)
except UserError as e:
    print(e)
else:
    visible = jax.config.values["jax_cuda_visible_devices"]
    print(jax.config.jax_platforms, visible, jax.devices())
"""


def choose(text):
    """Choose a device in a new process: the choice must precede any use of one."""
    words = [sys.executable, "-c", CHOOSE, text]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_chooses_a_device():
    assert choose("cpu") == "cpu all [CpuDevice(id=0)]\n"
    assert choose("cpu:0") == "cpu 0 [CpuDevice(id=0)]\n"


def test_shows_jax_one_gpu_only():
    code = (
        "import jax\n"
        "from lungseg_jax.runtime import devices\n"
        "from lungseg_jax.runtime.device_names import parse_device\n"
        "devices.choose(parse_device('gpu:1'))\n"
        "names = 'jax_platforms', 'jax_cuda_visible_devices'\n"
        "print([jax.config.values[name] for name in names])"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "['cuda,cpu', '1']\n"


@pytest.mark.parametrize("backend,is_there", [("gpu", True), ("cpu", False)])
def test_requires_the_backend_that_was_chosen(backend, is_there, monkeypatch):
    """JAX takes the CPU if it finds no GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(devices, "clear_backends", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    expected = contextlib.nullcontext() if is_there else pytest.raises(UserError)
    with expected:
        devices.require(DeviceName("gpu", None))


@pytest.mark.parametrize(
    "error,reason",
    [
        (AssertionError(), "no such device was found."),
        (
            RuntimeError("'cudda' is unknown. (set JAX_PLATFORMS='')"),
            "'cudda' is unknown.",
        ),
    ],
)
def test_a_platform_that_is_missing_is_a_plain_error(error, reason, monkeypatch):
    def local_devices():
        raise error

    monkeypatch.setattr(jax, "local_devices", local_devices)
    jax.config.update("jax_platforms", "cudda")
    with pytest.raises(UserError) as e:
        devices.require(None)
    assert e.value.what == f"JAX cannot use JAX_PLATFORMS=cudda: {reason}"


def has_accelerator():
    return any(device.platform != "cpu" for device in jax.devices())


@pytest.mark.skipif(has_accelerator(), reason="this machine has an accelerator")
@pytest.mark.parametrize("text", ["gpu", "gpu:3", "tpu", "cpu:1"])
def test_names_the_devices_that_are_there(text):
    what, rule, remedy = choose(text).splitlines()
    assert what == f"error: the device {text} was not found."
    assert rule == "rule:  JAX finds cpu:0."
    assert "[gpu]" in remedy
