"""Tests of lungseg_jax/runtime/extras.py."""

import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.extras import require_library


def test_names_the_extra_that_installs_a_library():
    require_library("numpy", extra="none", needed_by="--numbers")
    with pytest.raises(UserError, match="--numbers needs no_such_library") as e:
        require_library(
            "no_such_library", extra="x", needed_by="--numbers", otherwise="count."
        )
    assert e.value.remedy == "pip install 'lungseg_jax[x]', or count."
