"""Compiler options: known to this jaxlib, and without effect on initial weights."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lungseg_jax.runtime import compilation


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU backend")
def test_this_jaxlib_knows_our_cpu_options(monkeypatch):
    """Without them the step still runs, but more slowly: this test is how we notice."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert len(compilation._cpu_options.__wrapped__()) == 2


def test_keeps_the_options_in_the_flags_of_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_other=1")
    options = compilation._cpu_options.__wrapped__()
    assert options.keys() == {"xla_cpu_experimental_ynn_fusion_type"}


@pytest.mark.parametrize(
    "platform,has_options", [("cpu", True), ("gpu", False), ("tpu", False)]
)
def test_options_follow_the_devices_of_the_program(platform, has_options, monkeypatch):
    """And not the process, which may lower it for others."""
    sharding = SimpleNamespace(device_set=[SimpleNamespace(platform=platform)])
    passed = []
    with monkeypatch.context() as m:
        m.setattr(compilation, "_cpu_options", lambda: {"an": "option"})
        m.setattr(jax, "jit", lambda function, **options: passed.append(options))
        compilation.jit(abs, out_shardings=sharding)
    assert ("compiler_options" in passed[0]) == has_options


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_what_is_traced_knows_the_platform_of_the_program(platform, monkeypatch):
    monkeypatch.setattr(compilation, "platform_of", lambda sharding: platform)
    seen = []
    compilation.jit(lambda: seen.append(compilation.target_platform())).lower()
    assert seen == [platform] and not compilation.target_platform()


@pytest.mark.parametrize("compile_", [compilation.jit, compilation.jit_initializer])
def test_programs_do_not_follow_the_settings_of_the_process(compile_, other_settings):
    def draw():
        return jax.random.uniform(jax.random.key(7), (3,)), jnp.arange(3)

    expected = compile_(draw)()
    with other_settings():
        assert jax.random.uniform(jax.random.key(7)).dtype == "float64"
        result = compile_(draw)()
    for array, same in zip(result, expected, strict=True):
        assert array.dtype == same.dtype
        np.testing.assert_array_equal(array, same)


def test_jit_passes_its_options_on():
    add = compilation.jit(lambda x, n: x + n, static_argnums=1)
    assert add(1, 2) == 3 and add._cache_size() == 1
    add(2, 2)
    assert add._cache_size() == 1
    add(2, 3)
    assert add._cache_size() == 2


def test_jit_initializer_draws_the_same_numbers():
    def draw():
        return jax.random.normal(jax.random.key(0), (50, 7))

    optimized, unoptimized = jax.jit(draw)(), compilation.jit_initializer(draw)()
    np.testing.assert_allclose(optimized, unoptimized, atol=1e-6)


def test_keeps_the_first_compilation_cache(tmp_path):
    theirs = jax.config.jax_compilation_cache_dir
    compilation.enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == theirs
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.enable_compilation_cache(tmp_path)
        compilation.enable_compilation_cache(tmp_path / "other")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", theirs)


def test_leaves_the_cache_of_the_user_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 30.0)
        compilation.enable_compilation_cache(tmp_path)
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 30.0
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
