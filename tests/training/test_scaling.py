"""A batch for each device, by the rule of its docstring; the knobs of memory."""

import jax
import pytest

from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import config
from lungseg_jax.training.scaling import fit_to_devices, memory_remedy, scale_to_devices


def recipe(**changes):
    c = config.default_config()
    c.train.batch_size, c.train.total_steps = 8, 800
    c.train.save_every = c.train.validate_every = 80
    c.schedule.cycles, c.schedule.peak, c.schedule.floor = 2, 4e-3, 1e-4
    c.update_from_flattened_dict(changes)
    return c


def test_without_the_knob_nothing_changes():
    c = recipe()
    assert fit_to_devices(c) == (c, None)


def test_a_batch_sixteen_times_as_large():
    c = recipe(**{"train.batch_per_device": 16})
    scaled = scale_to_devices(c, 8)
    assert scaled.train.batch_size == 128
    assert scaled.train.total_steps == 50 and scaled.train.save_every == 5
    assert scaled.schedule.peak == 16e-3 and scaled.schedule.floor == 4e-4
    assert scaled.schedule.hold_steps == 1
    assert scaled.schedule.warmup_steps == 2  # a twentieth of the first 25 steps
    assert config.snapshot_steps(scaled) == (25, 50)
    assert c.train.batch_size == 8  # the recipe is left as it was


def test_rates_that_are_held_are_not_warmed_up():
    """They would be held at 0 in the first updates."""
    c = recipe(**{"train.batch_per_device": 16, "schedule.hold_steps": 30})
    scaled = scale_to_devices(c, 8)
    assert scaled.schedule.hold_steps == 2  # 1.875
    assert scaled.schedule.warmup_steps == 0


def test_the_batch_of_the_recipe_leaves_its_numbers():
    c = recipe(**{"train.batch_per_device": 2, "schedule.warmup_steps": 3})
    c.schedule.peak = 0.00312345
    assert config.differences(c.to_dict(), scale_to_devices(c, 4).to_dict()) == []


@pytest.mark.parametrize(
    "warmup,devices,expected", [(40, 4, 10), (40, 1, 40), (0, 4, 5)]
)
def test_the_warm_up_keeps_its_share(warmup, devices, expected):
    c = recipe(**{"train.batch_per_device": 8, "schedule.warmup_steps": warmup})
    assert scale_to_devices(c, devices).schedule.warmup_steps == expected


def test_a_smaller_batch_takes_more_steps_at_a_lower_rate():
    never = config.knobs.LARGE
    c = recipe(**{"train.batch_per_device": 2, "train.save_every": never})
    scaled = scale_to_devices(c, 1)
    assert scaled.train.total_steps == 3200 and scaled.train.validate_every == 320
    assert scaled.schedule.peak == 2e-3 and scaled.schedule.warmup_steps == 0
    assert scaled.schedule.hold_steps == 1 and scaled.train.save_every == never
    c.schedule.hold_steps = 30
    assert scale_to_devices(c, 1).schedule.hold_steps == 120


def test_a_batch_that_leaves_no_steps_is_refused():
    c = recipe(**{"train.batch_per_device": 8 * 800})
    with pytest.raises(UserError, match="cycle without a step"):
        scale_to_devices(c, 1)


def test_a_batch_for_each_device_is_what_accumulation_divides():
    c = recipe(**{"train.batch_per_device": 9, "train.accumulate": 3})
    config.check_config(c)  # though 3 does not divide the batch of the recipe
    with pytest.raises(UserError, match="train.accumulate=2") as e:
        config.check_config(
            recipe(**{"train.batch_per_device": 9, "train.accumulate": 2})
        )
    assert e.value.rule == "a divisor of train.batch_per_device=9."


def test_a_run_stays_scaled_to_the_devices_that_it_was_started_on(capsys):
    here, c = jax.device_count(), recipe(**{"train.batch_per_device": 8})
    new, devices = fit_to_devices(c)
    assert devices == here and new.train.batch_size == 8 * here
    resumed, devices = fit_to_devices(c, 4 * here)
    assert devices == 4 * here and resumed.train.batch_size == 32 * here
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith(f"a batch of 8 for each of {4 * here} devices: schedule.")


def test_names_the_knobs_that_take_less_memory():
    c = recipe()
    assert memory_remedy(c) == (
        "--config.train.accumulate=2, --config.model.remat=true, "
        "--config.model.dtype=bfloat16, a smaller --config.data.image_size; "
        "another --workdir, as it is another run."
    )
    c.train.batch_size = c.train.accumulate = 9
    c.model.remat, c.model.dtype = True, "bfloat16"
    assert memory_remedy(c).startswith("a smaller --config.data.image_size;")
