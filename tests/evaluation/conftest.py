"""Shared by the tests of evaluation."""

import dataclasses

import pytest

from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import init_variables


@pytest.fixture(scope="session")
def every(trained):
    """The members of the `trained` fixture, with its tuning, and their average."""
    average = init_variables(make_model(**trained.model), channels=1, seed=9)
    members = {**trained.members, AVERAGE: average}
    return dataclasses.replace(trained, members=members)
