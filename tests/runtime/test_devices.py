"""A GPU that is not used is announced."""

import jax
import pytest

from lungseg_jax.runtime import devices


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
