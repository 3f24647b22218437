"""Whether a program fits devices that need not be there, as its compiler reports."""

import dataclasses
import time
from collections.abc import Sequence

import jax

from lungseg_jax.runtime import memory
from lungseg_jax.runtime.ahead_of_time.arithmetic import count_flops
from lungseg_jax.runtime.ahead_of_time.chips import Chip
from lungseg_jax.runtime.ahead_of_time.hlo import Collective, Size, measure_traffic
from lungseg_jax.runtime.errors import UserError

SHARE_OF_GPU = 0.75  # of its memory that JAX takes, unless it is told otherwise


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """What one device does in one call of a program; None: the compiler does not say.

    Attributes:
      fits: whether it fits in memory.
      refusal: what the compiler needed and had, if it does not.
      compile_s: time of the compilation.
      compile_cpu_s: time of all cores in it.
      flops: multiplications and additions of convolutions and products.
      arithmetic_s: their time at the chip's peak.
      peak_bytes: memory that is taken at once.
      argument_bytes: of which the arguments.
      moved: to and from memory.
      bandwidth_s: their time at the chip's bandwidth, padding included.
      estimate_s: the sum of the compiler's estimates of all instructions.
      instructions: how many are started.
      collectives: what the devices exchange.
    """

    fits: bool | None
    refusal: str
    compile_s: float
    compile_cpu_s: float
    flops: float
    arithmetic_s: float | None
    peak_bytes: int | None = None
    argument_bytes: int | None = None
    moved: Size | None = None
    bandwidth_s: float | None = None
    estimate_s: float | None = None
    instructions: int | None = None
    collectives: Sequence[Collective] = ()


def report_compilation(
    traced: jax.stages.Traced, chip: Chip, devices: int
) -> CompileReport:
    """Compile a program for the devices of its arguments, and describe it.

    Raises:
      UserError: the compiler of a GPU found no form of a product. Where there is the GPU,
        it would try several.
    """
    flops = count_flops(traced.jaxpr) / devices
    lowered = traced.lower()
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        if "tile sizes" in str(e):
            raise UserError(
                f"the compiler gave up: {str(e).splitlines()[0]}",
                remedy="let it take all products from cuBLAS: "
                "XLA_FLAGS=--xla_gpu_enable_triton_gemm=false lungseg compile ...",
            ) from e
        if not memory.is_exhausted(e):
            raise
        compiled, refusal = None, memory.shortage(e)
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu_start
    arithmetic = flops / chip.flops if chip.flops else None
    if compiled is None:
        return CompileReport(False, refusal, seconds, cpu_seconds, flops, arithmetic)
    traffic, needed = measure_traffic(compiled.as_text()), compiled.memory_analysis()
    limit = chip.memory * (SHARE_OF_GPU if chip.platform == "gpu" else 1)
    return CompileReport(
        fits=needed.peak_memory_in_bytes <= limit if limit else None,
        refusal="",
        compile_s=seconds,
        compile_cpu_s=cpu_seconds,
        flops=flops,
        arithmetic_s=arithmetic,
        peak_bytes=needed.peak_memory_in_bytes,
        argument_bytes=needed.argument_size_in_bytes,
        moved=traffic.moved,
        bandwidth_s=traffic.moved.padded / chip.bandwidth if chip.bandwidth else None,
        estimate_s=traffic.cycles / chip.clock if chip.clock else None,
        instructions=traffic.instructions,
        collectives=traffic.collectives,
    )
