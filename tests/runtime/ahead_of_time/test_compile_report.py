"""What a compilation says of a program, and of one that does not fit."""

import jax
import jax.numpy as jnp
import pytest

from lungseg_jax.runtime.ahead_of_time.chips import CHIPS, Chip
from lungseg_jax.runtime.ahead_of_time.compile_report import report_compilation
from lungseg_jax.runtime.errors import UserError

TWICE = jax.ShapeDtypeStruct((256, 256), jnp.float32)
REFUSALS = [
    "RESOURCE_EXHAUSTED: Ran out of memory in hbm. Used 29.49G of 15.75G hbm. Exceeded",
    "RESOURCE_EXHAUSTED: Size of inputs (29.49G) exceeds available HBM (15.75G)",
]


def test_reports_a_product_by_hand():
    traced = jax.jit(lambda a, b: a @ b).trace(TWICE, TWICE)
    array = 256 * 256 * 4
    chip = Chip("cpu", memory=4 * array, bandwidth=1e9, flops=1e9)
    report = report_compilation(traced, chip, 1)
    assert report.fits and report.argument_bytes == 2 * array
    assert report.moved.logical == report.moved.padded == 3 * array
    assert report.bandwidth_s == pytest.approx(3 * array / 1e9)
    assert report.flops == 2 * 256**3
    assert report.arithmetic_s == pytest.approx(2 * 256**3 / 1e9)
    assert report.estimate_s is None and not report.collectives
    assert not report_compilation(traced, chip._replace(memory=array), 1).fits


class Refused:
    """A program that its compiler refuses with these words."""

    jaxpr = jax.make_jaxpr(lambda: ())()

    def __init__(self, words):
        self.words = words

    def lower(self):
        return self

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.words)


@pytest.mark.parametrize("words", REFUSALS)
def test_says_how_much_too_large_a_program_is(words):
    report = report_compilation(Refused(words), CHIPS["v5e"], 1)
    assert report.fits is False and report.refusal == "29.49 GiB of 15.75 GiB"
    assert report.peak_bytes is None


def test_says_what_to_do_if_a_product_has_no_form():
    words = "INTERNAL: Couldn't find output tile sizes that satisfy hlo: %dot.560"
    with pytest.raises(UserError, match="dot.560") as e:
        report_compilation(Refused(words), CHIPS["h100"], 1)
    assert "xla_gpu_enable_triton_gemm=false" in e.value.remedy


def test_other_failures_of_a_compiler_are_not_hidden():
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        report_compilation(Refused("INTERNAL: a bug"), CHIPS["v5e"], 1)
