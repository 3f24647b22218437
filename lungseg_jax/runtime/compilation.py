"""How programs are compiled: the persistent cache, and compiler options by platform."""

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from lungseg_jax.runtime.errors import unknown_name

PLATFORMS = ("cpu", "cuda", "tpu")  # that programs are lowered for


def enable_compilation_cache(root: Path) -> None:
    """Keep every compiled program: most of ours are small and compile within a second.

    The first cache of a process stays as it is: that of the user, set in the environment
    or by `jax.config`, or that of a training, which then loads its first weights.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", str(root / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def jit(
    function: Callable,
    *,
    out_shardings: jax.sharding.Sharding | None = None,
    **options: Any,
) -> Callable:
    """`jax.jit` that tells traced code its platform and sets our options for a CPU.

    The program is traced with `fixed_settings`.
    """
    platform = platform_of(out_shardings)
    if platform == "cpu":
        options["compiler_options"] = _cpu_options()

    @functools.wraps(function)
    def traced(*arguments, **keywords):
        with tracing_for(platform), fixed_settings():
            return function(*arguments, **keywords)

    return jax.jit(traced, out_shardings=out_shardings, **options)


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
    """Trace what is in the block with 32-bit numbers and the same random numbers always.

    The process may have other settings, by JAX_ENABLE_X64 in a notebook or by
    JAX_DEFAULT_PRNG_IMPL on a cluster. Weights and runs are shared between them.
    """
    with (
        jax.enable_x64(False),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
    ):
        yield


_target = contextvars.ContextVar("platform", default="")


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Let what is traced in the block know the platform that it is traced for."""
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def target_platform() -> str:
    """Return the platform that a program is traced for, or "" for any."""
    return _target.get()


def require_platforms(
    platforms: str | Sequence[str] | None,
) -> tuple[str, ...] | None:
    """Return the names of platforms as `jax.stages.Traced.lower` takes them.

    Raises:
      UserError: a name is none of PLATFORMS.
    """
    if platforms is None:
        return None
    names = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    for name in names:
        if name not in PLATFORMS:
            raise unknown_name("platform", name, PLATFORMS)
    return names


def platform_of(sharding: jax.sharding.Sharding | None = None) -> str:
    """Return the platform of a sharding's devices, or of the device that JAX prefers.

    They differ where a program is compiled on one machine for another.
    """
    device, *_ = sharding.device_set if sharding else jax.local_devices()
    return device.platform


def jit_initializer(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for functions that draw random weights, compiled without optimization.

    Drawing weights compiles a program per shape. Unoptimized, that takes a third of the
    time and gives the same numbers to within 1e-7. It is traced with `fixed_settings`.
    """
    return jax.jit(
        fixed_settings()(function),
        compiler_options={"xla_backend_optimization_level": 0},
        **options,
    )


@functools.cache
def _cpu_options() -> dict[str, Any]:
    """Options that speed up XLA's CPU backend; empty where it does not support them.

    An option that the user has set in XLA_FLAGS keeps that value.
    """
    options = {
        # Run fewer LLVM passes. Compilation takes a sixth less time, and the step is just
        # as fast: it spends its time in precompiled convolutions and products.
        "xla_backend_optimization_level": 1,
        # Use YNNPACK for reductions and products but not for convolutions, many of which
        # it runs on one core (jaxlib 0.10): with them a step takes 1.1 (inception) and
        # 1.4 times (conv) as long (`benchmarks/textbook_forms.py --size 256`).
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        ),
    }
    theirs = [
        flag.partition("=")[0] for flag in os.environ.get("XLA_FLAGS", "").split()
    ]
    options = {name: v for name, v in options.items() if f"--{name}" not in theirs}
    try:
        cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        program = jax.jit(lambda: 0, out_shardings=cpu, compiler_options=options)
        program.lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
