"""Which checkpoints exist, and that what comes back is what went in."""

import collections
import contextlib
import gc
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.checkpoints import Checkpoints
from lungseg_jax.models import make_model
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.state import make_init_fn

# What Orbax leaves open when it meets damage.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine .* was never awaited:RuntimeWarning",
)


@pytest.fixture(scope="module")
def state():
    model = make_model("conv", filters=1)
    return make_init_fn(model, optax.adamw(1e-3), channels=1, seed=0)()


def save(saved, state, notes):
    saved.save(int(state.step), state.arrays, notes)


def restore(saved, state):
    step, arrays, notes = saved.restore(state.arrays)
    return (state.at(step, arrays) if step else state), notes


def at(state, step):
    """The same state after `step` updates, with weights that tell it."""
    params = jax.tree.map(lambda a: jnp.full_like(a, step), state.params)
    return state.replace(step=jnp.int32(step), params=params)


@pytest.mark.parametrize(
    "last,kept", [(2, [2]), (4, [3, 4]), (6, [3, 4, 6]), (8, [3, 7, 8]), (9, [3, 7, 9])]
)
def test_snapshots_stay_and_before_the_last_the_newest_two(tmp_path, state, last, kept):
    with Checkpoints(tmp_path, snapshots=[3, 7, 9]) as saved:
        for step in (2, 3, 4, 6, 7, 8, 9):
            if step <= last:
                save(saved, at(state, step), {})
    assert checkpoints.saved_steps(tmp_path) == kept


def test_restore_is_the_newest_and_equal(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[3]) as saved:
        save(saved, at(state, 3), {})
        save(saved, at(state, 5), {})
    with Checkpoints(tmp_path, snapshots=[3]) as saved:
        restored, _ = restore(saved, state)
    assert int(restored.step) == 5
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.params, at(state, 5).params)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)


def test_a_save_that_is_followed_by_donated_updates_is_not_disturbed(tmp_path, state):
    update = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    copy = jax.tree.map(jnp.copy, at(state, 1).params)
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        save(saved, state.replace(step=jnp.int32(1), params=copy), {})
        for _ in range(50):
            copy = update(copy)
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        restored, _ = restore(saved, state)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(restored.params))


def test_nothing_saved_restores_the_state_itself(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        assert restore(saved, state)[0] is state
    assert checkpoints.saved_steps(tmp_path / "none") == []


def test_variables_come_without_the_optimizer(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[4]) as saved:
        save(saved, at(state, 4), {})
    like = {"params": state.params, "batch_stats": state.batch_stats}
    variables = checkpoints.restore_variables(tmp_path, 4, like)
    assert variables.keys() == {"params", "batch_stats"}
    assert all((leaf == 4).all() for leaf in jax.tree.leaves(variables["params"]))
    with pytest.raises(UserError, match="no step 5"):
        checkpoints.restore_variables(tmp_path, 5, like)


def test_another_network_is_refused_by_the_name_of_an_array(tmp_path, state):
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        save(saved, at(state, 1), {})
    wider = make_init_fn(
        make_model("conv", filters=2), optax.adamw(1e-3), channels=1, seed=0
    )()
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        with pytest.raises(UserError, match="down_1/layer"):
            restore(saved, wider)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, snapshots=[3, 5]) as saved:
        save(saved, at(state, 3), {"loss": [0.5]})
        save(saved, at(state, 5), {"loss": [0.25, 0.125]})
    return folder


def outcome(folder, state) -> str:
    """ "harmless" or "detected", and nothing else, of a folder whose step 5 was harmed.

    Restoring goes back to step 3 where it sees the harm, and gives step 5 as it was where
    it does not; `verify` and `restore_variables`, of which an ensemble is made, as well.
    """
    like = {"params": state.params, "batch_stats": state.batch_stats}
    with Checkpoints(folder, snapshots=[3, 5]) as saved:
        restored, notes = restore(saved, state)
    step = int(restored.step)
    assert notes == {5: {"loss": [0.25, 0.125]}, 3: {"loss": [0.5]}}[step]
    same(restored, at(state, step))
    try:
        checkpoints.verify_checkpoint(folder, 5)
        variables = checkpoints.restore_variables(folder, 5, like)
    except checkpoints.CorruptCheckpointError:
        # An ensemble reads less than all: what it gets is right, or it is refused.
        with contextlib.suppress(checkpoints.CorruptCheckpointError):
            same(checkpoints.restore_variables(folder, 5, like), at(state, 5))
        return "detected"
    assert step == 5
    same(variables, at(state, 5))
    return "harmless"


def same(found, wanted):
    for part in ("params", "batch_stats", "opt_state"):
        if part == "opt_state" and isinstance(found, dict):
            continue
        ours = found[part] if isinstance(found, dict) else getattr(found, part)
        jax.tree.map(np.testing.assert_array_equal, ours, getattr(wanted, part))


def harmed(two_saved, tmp_path, harm):
    gc.collect()  # what Orbax left open, while the warnings of it are ignored
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(two_saved, folder)
    harm(folder / "5")
    return folder


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def flip_one_of_each_file(two_saved, tmp_path, state, rng):
    outcomes = {}
    for file in files(two_saved / "5"):
        name = file.relative_to(two_saved / "5")
        if size := file.stat().st_size:
            bit = int(rng.integers(8 * size))
            folder = harmed(two_saved, tmp_path, lambda at: flip(at / name, bit))
            outcomes[str(name)] = outcome(folder, state)
    return outcomes


def test_a_flipped_bit_in_any_file_is_detected_or_harmless(two_saved, tmp_path, state):
    found = flip_one_of_each_file(two_saved, tmp_path, state, np.random.default_rng(0))
    assert found["seal/metadata"] == "detected"
    assert len(found) > 5


def flip_anywhere(two_saved, tmp_path, state, rng):
    sizes = [(file, file.stat().st_size) for file in files(two_saved / "5")]
    place = int(rng.integers(8 * sum(size for _, size in sizes)))
    for file, size in sizes:
        if place < 8 * size:
            break
        place -= 8 * size
    name = file.relative_to(two_saved / "5")
    folder = harmed(two_saved, tmp_path, lambda at: flip(at / name, place))
    return outcome(folder, state)


@pytest.mark.parametrize("seed", range(10))
def test_a_bit_flipped_anywhere(two_saved, tmp_path, state, seed):
    rng = np.random.default_rng(seed)
    assert flip_anywhere(two_saved, tmp_path, state, rng) in ("detected", "harmless")


@pytest.mark.slow
def test_two_hundred_bits_flipped_anywhere(two_saved, tmp_path, state):
    rng = np.random.default_rng(200)
    found = [flip_anywhere(two_saved, tmp_path, state, rng) for _ in range(200)]
    of_files = flip_one_of_each_file(two_saved, tmp_path, state, rng)
    print(collections.Counter(found), of_files)
    assert found.count("detected") > 150  # most of the bytes are arrays


@pytest.mark.parametrize("harm", ["truncated", "missing"])
@pytest.mark.slow
def test_a_file_that_is_cut_or_gone(two_saved, tmp_path, state, harm):
    found = []
    for file in files(two_saved / "5"):
        name = file.relative_to(two_saved / "5")

        def hurt(at):
            if harm == "missing":
                (at / name).unlink()
            else:
                os.truncate(at / name, file.stat().st_size // 2)

        found.append(outcome(harmed(two_saved, tmp_path, hurt), state))
    assert "detected" in found


def test_an_emptied_folder_and_one_of_another_step(two_saved, tmp_path, state):
    def empty(at):
        shutil.rmtree(at)
        at.mkdir()

    def exchange(at):
        shutil.rmtree(at)
        shutil.copytree(at.parent / "3", at)

    for harm in (empty, exchange):
        assert outcome(harmed(two_saved, tmp_path, harm), state) == "detected"


def test_a_damaged_step_is_named_passed_over_and_written_anew(
    two_saved, tmp_path, state, capsys
):
    folder = harmed(two_saved, tmp_path, lambda at: (at / "seal/metadata").unlink())
    with Checkpoints(folder, snapshots=[3, 5]) as saved:
        assert int(restore(saved, state)[0].step) == 3
        assert capsys.readouterr().out.count("checkpoints/5 is damaged") == 1
        save(saved, at(state, 5), {"loss": [0.25, 0.125]})
    assert outcome(folder, state) == "harmless"


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, state):
    params = jax.tree.map(lambda a: a.at[(0,) * a.ndim].set(jnp.inf), state.params)
    with Checkpoints(tmp_path, snapshots=[]) as saved:
        with pytest.raises(UserError, match="diverged: after step 7 params/"):
            save(saved, state.replace(step=jnp.int32(7), params=params), {})
    assert checkpoints.saved_steps(tmp_path) == []


def test_a_disk_without_room_is_refused_with_what_is_needed(
    tmp_path, state, monkeypatch
):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with Checkpoints(tmp_path, snapshots=[3, 5]) as saved:
        with pytest.raises(UserError, match="0.0 MB free") as e:
            saved.check_room(state.arrays)
    assert "5 checkpoints of" in e.value.rule


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as e:
        pytest.skip(f"a small file system cannot be mounted here: {e}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_the_last_good_step(small_disk, state):
    rng = np.random.default_rng(0)

    def noisy(step):  # or it is compressed
        params = jax.tree.map(
            lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), state.params
        )
        return state.replace(step=jnp.int32(step), params=params)

    with pytest.raises(UserError, match="No space left on device") as e:
        with Checkpoints(small_disk, snapshots=range(100)) as saved:
            for step in range(100):
                save(saved, noisy(step), {})
    good = checkpoints.saved_steps(small_disk)[-1]
    assert f"it goes on from step {good}" in e.value.remedy
    assert "MB are free" in e.value.rule
    assert {p.name for p in small_disk.iterdir()} == {str(s) for s in range(good + 1)}
    checkpoints.verify_checkpoint(small_disk, good)
