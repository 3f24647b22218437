"""Multiplications and additions of programs, against the textbook formula."""

import jax
import jax.numpy as jnp

from lungseg_jax.runtime.ahead_of_time.arithmetic import count_flops


def flops(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    return count_flops(jax.jit(function).trace(*arguments).jaxpr)


def test_matrix_product():
    assert flops(lambda a, b: a @ b, (5, 7), (7, 3)) == 2 * 5 * 7 * 3


def test_functions_count_as_often_as_they_are_called():
    product = jax.jit(lambda a, b: a @ b)

    def twice(a, b):
        return product(product(a, b), b)

    assert flops(twice, (4, 4), (4, 4)) == 2 * 2 * 4**3


def test_scans_count_as_often_as_they_run():
    def nested(a, b):
        def inner(carry, _):
            return carry @ b, None

        def outer(carry, _):
            carry, _ = jax.lax.scan(inner, carry @ b, length=5)
            return carry, None

        return jax.lax.scan(outer, a, length=3)[0] @ b

    assert flops(nested, (4, 4), (4, 4)) == 2 * (3 * (5 + 1) + 1) * 4**3


def test_loops_of_unknown_length_run_once():
    def until_small(a, b):
        a = jax.lax.while_loop(lambda a: a.sum() > 1, lambda a: a @ b, a)
        return jax.lax.fori_loop(0, a[0, 0].astype(int), lambda i, a: a @ b, a)

    assert flops(until_small, (4, 4), (4, 4)) == 2 * 2 * 4**3


def test_a_convolution_and_its_gradients_cost_the_same():
    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dimensions
        )

    def with_gradients(x, kernel):
        y, gradients = jax.vjp(convolve, x, kernel)
        return y, gradients(y)

    shapes = (2, 8, 8, 3), (3, 3, 3, 5)
    assert flops(convolve, *shapes) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    # A sum over the pixels or over the channels: as many terms, padding included.
    assert flops(with_gradients, *shapes) == 3 * flops(convolve, *shapes)
