"""The multiplications and additions of a program, counted in its jaxpr."""

import math

from jax.extend import core


def count_flops(program: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Count the operations of convolutions and matrix products, on all devices.

    Everything else is small beside them. A scan counts as often as it runs; loops of
    unknown length run once. Results that are not used count, too.

    Args:
      program: before it is divided among devices, such as `jax.stages.Traced.jaxpr`.
    """
    return sum(
        _own_flops(equation)
        + _repetitions(equation)
        * sum(map(count_flops, core.jaxprs_in_params(equation.params)))
        for equation in program.eqns
    )


def _own_flops(equation: core.JaxprEqn) -> int:
    """Return two operations for each term of each output of a convolution or product."""
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        features, *_ = equation.params["dimension_numbers"].rhs_spec
        terms = kernel.size // kernel.shape[features]
    elif equation.primitive.name == "dot_general":
        left = equation.invars[0].aval
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(left.shape[axis] for axis in contracted)
    else:
        return 0
    return 2 * equation.outvars[0].aval.size * terms


def _repetitions(equation: core.JaxprEqn) -> int:
    """Return how often the programs inside an equation run."""
    if equation.primitive.name == "scan":
        return equation.params["length"]
    if equation.primitive.name == "shard_map":  # it is written for one device
        return equation.params["mesh"].size
    return 1
