"""Devices by name, such as gpu:1; parsed without JAX, so that help and errors are fast."""

import re
from typing import NamedTuple

from lungseg_jax.runtime.errors import UserError

HELP = "cpu, gpu or tpu, and :N for one of several; by default what JAX prefers."


class DeviceName(NamedTuple):
    """The platform of JAX, and which of its devices; None for all of them."""

    platform: str
    index: int | None

    def __str__(self) -> str:
        return self.platform if self.index is None else f"{self.platform}:{self.index}"


def parse_device(text: str) -> DeviceName | None:
    """Parse the name of a device; "" is None, the choice of JAX.

    Raises:
      UserError: it is not such a name.
    """
    if not text:
        return None
    match = re.fullmatch(r"(cpu|gpu|tpu)(?::(\d{1,4}))?", text, re.ASCII)
    if not match:
        raise UserError(
            f"--device={text} is not the name of a device.",
            rule="cpu, gpu or tpu, or one of several, such as gpu:0.",
        )
    platform, index = match.groups()
    return DeviceName(platform, None if index is None else int(index))
