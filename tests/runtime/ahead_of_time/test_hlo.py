"""What a compiled program moves, by hand and as this compiler writes it."""

import jax
import jax.numpy as jnp
import pytest

from lungseg_jax.runtime.ahead_of_time.hlo import (
    Collective,
    Size,
    measure_traffic,
    parse,
    size_of,
)


@pytest.mark.parametrize(
    "type_,logical,padded",
    [
        ("f32[]", 4, 4),
        ("pred[3]", 3, 3),
        ("f32[4,8]{1,0}", 128, 128),
        ("f32[4,8]{1,0:T(8,128)}", 128, 8 * 128 * 4),
        # A batch of 16 on the 128 lanes: eight times as large.
        ("bf16[16,512,512,8]{0,3,2,1:T(8,128)(2,1)}", 2**26, 2**29),
        ("f32[10]{0:T(1024)}", 40, 4096),
        ("(f32[2]{0}, bf16[2,2]{1,0:T(8,128)})", 16, 8 + 2048),
        ("f32[4,8]{1,0:T(8,128)S(1)}", 0, 0),  # in vector memory
    ],
)
def test_sizes_by_hand(type_, logical, padded):
    assert size_of(type_) == Size(logical, padded)


PROGRAM = """\
HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%fused (p: f32[100,256], q: s32[]) -> f32[1,256] {
  %p = f32[100,256]{1,0} parameter(0)
  %q = s32[] parameter(1)
  ROOT %d = f32[1,256]{1,0} dynamic-slice(%p, %q, %q), dynamic_slice_sizes={1,256}
}

%body (s: (s32[], f32[256])) -> (s32[], f32[256]) {
  %s = (s32[], f32[256]{0}) parameter(0)
  %x = f32[256]{0} get-tuple-element(%s), index=1
  %r = f32[256]{0} all-reduce(%x), channel_id=1, to_apply=%add
  ROOT %t = (s32[], f32[256]{0}) tuple(%x, %r)
}

ENTRY %main (data: f32[100,256], i: s32[]) -> f32[256] {
  %data = f32[100,256]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %row = f32[1,256]{1,0} fusion(%data, %i), kind=kLoop, calls=%fused, \
backend_config={"estimated_cycles":"700"}
  %w = (s32[], f32[256]{0}) while(%row), condition=%add, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[256]{0} get-tuple-element(%w), index=1
}
"""


def test_counts_loops_and_only_the_row_that_is_read():
    traffic = measure_traffic(PROGRAM)
    kilobyte = 256 * 4
    # A row in and out with its index, then three times a vector in and out.
    moved = 2 * kilobyte + 4 + 3 * 2 * kilobyte
    assert traffic.moved == Size(moved, moved)
    assert traffic.collectives == [Collective("all-reduce", "f32", 3, 3 * kilobyte)]
    assert (traffic.instructions, traffic.cycles) == (4, 700)


MIXED = """\
HloModule jit_h, is_scheduled=true

ENTRY %main (x: f32[2], y: bf16[4], z: f32[3]) -> (f32[2], bf16[4], f32[3]) {
  %x = f32[2]{0} parameter(0)
  %y = bf16[4]{0} parameter(1)
  %z = f32[3]{0} parameter(2)
  ROOT %r = (f32[2]{0}, bf16[4]{0}, f32[3]{0}) all-reduce(%x, %y, %z), to_apply=%add
}
"""


def test_an_exchange_of_several_dtypes_counts_once_for_each():
    assert measure_traffic(MIXED).collectives == [
        Collective("all-reduce", "bf16", 1, 8),
        Collective("all-reduce", "f32", 1, 20),
    ]


PREFETCHED = """\
HloModule jit_g, is_scheduled=true

ENTRY %main (x: f32[32,256]) -> f32[32,256] {
  %x = f32[32,256]{1,0:T(8,128)} parameter(0)
  %in = (f32[32,256]{1,0:T(8,128)S(1)}, f32[32,256]{1,0:T(8,128)}, u32[]{:S(2)}) \
copy-start(%x)
  %near = f32[32,256]{1,0:T(8,128)S(1)} copy-done(%in)
  %part = ((f32[32,256]{1,0:T(8,128)}), f32[4,256]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%x), slice={[0:4], [0:256]}
  %rows = f32[4,256]{1,0:T(8,128)S(1)} slice-done(%part)
  %y = f32[32,256]{1,0:T(8,128)S(1)} fusion(%near, %rows), kind=kLoop, calls=%f
  %out = (f32[32,256]{1,0:T(8,128)}, f32[32,256]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) \
copy-start(%y)
  ROOT %done = f32[32,256]{1,0:T(8,128)} copy-done(%out)
}
"""


def test_counts_what_a_tpu_moves_to_and_from_its_vector_memory():
    """An array in and out, and four of its rows, which are padded to eight."""
    traffic = measure_traffic(PREFETCHED)
    row = 256 * 4
    assert traffic.moved == Size((32 + 4 + 32) * row, (32 + 8 + 32) * row)
    assert traffic.instructions == 4


def test_a_copy_within_main_memory_is_read_and_written():
    text = PREFETCHED.replace("S(1)", "")
    row = 256 * 4
    # Three copies in and out, and the fusion, which reads all of its operands.
    rows = 2 * (32 + 4 + 32) + (32 + 4 + 32)
    assert measure_traffic(text).moved.logical == rows * row


def test_reads_what_this_compiler_writes():
    compiled = jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((64, 64))).compile()
    text = compiled.as_text()
    computations, entry = parse(text)
    assert entry in computations
    moved = measure_traffic(text).moved
    array = 64 * 64 * 4
    assert 3 * array <= moved.logical <= 8 * array
