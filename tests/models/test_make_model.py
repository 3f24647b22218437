"""`make_model` knows the networks by name."""

import pytest

from lungseg_jax.models import MODELS, make_model
from lungseg_jax.models.norms import NORMS
from lungseg_jax.runtime.errors import UserError


@pytest.mark.parametrize("name", ["unet", "Conv", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(UserError) as e:
        make_model(name)
    assert repr(name) in e.value.what
    assert e.value.rule == f"one of: {', '.join(sorted(MODELS))}."


@pytest.mark.parametrize(
    "options,error",
    [
        ({"dtype": "float23"}, "unknown dtype 'float23'"),
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"precision": "low"}, "unknown precision 'low'"),
        ({"levels": 0}, "levels=0"),
        ({"levels": 4.0}, "levels=4.0"),
        ({"filters": "8"}, "filters='8'"),
        ({"levels": 9}, "levels=9"),
        ({"filters": 0}, "filters=0"),
        ({"kernel_size": -1}, "kernel_size=-1"),
        ({"kernel_size": 2}, "kernel_size=2"),
        ({"bn_momentum": 2}, "bn_momentum=2"),
        ({"bn_momentum": "0.9"}, "bn_momentum='0.9'"),
    ],
)
def test_faulty_options_are_refused_at_once(options, error):
    with pytest.raises(UserError, match=error) as e:
        make_model("conv", **options)
    assert e.value.rule


@pytest.mark.parametrize("name", MODELS)
def test_equal_arguments_give_the_same_object(name):
    """Functions compiled for it are reused."""
    assert make_model(name, filters=2) is make_model(name, filters=2)
    assert make_model(name, filters=2) is not make_model(name, filters=3)


def test_a_row_may_be_replaced(monkeypatch):
    """As by a cell of a notebook that is run again."""
    before = make_model("conv")
    monkeypatch.setitem(MODELS, "conv", MODELS["inception"])
    assert make_model("conv") == make_model("inception") != before


def test_a_norm_may_be_replaced(monkeypatch):
    """Programs that are compiled for the network before are not used for the new one."""
    before = make_model("conv", norm="batch")
    monkeypatch.setitem(NORMS, "batch", NORMS["group"])
    assert (
        make_model("conv", norm="batch") == make_model("conv", norm="group") != before
    )
