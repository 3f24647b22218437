"""Sizes of the elements of boundaries, against the library of the authors of NSD."""

import numpy as np
import pytest
from surface_distance import lookup_tables

from lungseg_jax.metrics.surface_elements import element_patterns, element_sizes


def reversed_bits(count):
    """The same pattern in the library's order of neighbours, for each of ours."""
    return [int(f"{i:0{count}b}"[::-1], 2) for i in range(2**count)]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (3, 1, 2)])
def test_areas_are_those_of_the_library(spacing):
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    theirs = np.array(table)[reversed_bits(8)]
    np.testing.assert_allclose(element_sizes(spacing), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.3)])
def test_lengths_are_those_of_the_library(spacing):
    table = lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    theirs = np.array(table)[reversed_bits(4)]
    np.testing.assert_allclose(element_sizes(spacing), theirs, rtol=1e-9)


def test_a_flat_surface_has_its_area():
    mask = np.zeros((6, 8, 9), bool)
    mask[:3] = True
    sizes = element_sizes((2.0, 0.5, 3.0))[element_patterns(mask)]
    assert sizes.shape == (5, 7, 8)
    assert sizes.sum() == pytest.approx(7 * 8 * 0.5 * 3.0)


def test_patterns_are_bits_in_the_order_of_memory():
    mask = np.zeros((2, 2, 2), bool)
    mask[1, 0, 1] = True
    assert element_patterns(mask).tolist() == [[[2**5]]]
