"""Which steps are kept; each is restored exactly or reported as damaged."""

import collections
import contextlib
import errno
import gc
import os
import shutil
import subprocess
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.local_checkpoints import LocalCheckpoints
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.models.blocks import Conv, ConvBlock
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.state import make_init_fn

# From what Orbax leaves open when it finds damage.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine .* was never awaited:RuntimeWarning",
)


class TwoLayers(nn.Module):
    """A network of few arrays: Orbax takes milliseconds for each."""

    filters: int

    @nn.compact
    def __call__(self, images, *, train):
        x = ConvBlock(self.filters, name="down_1")(images, train=train)
        logits, bias = Conv(1, kernel_size=3, name="head")(x)
        return logits[..., 0] + bias


def make_state(filters):
    model = TwoLayers(filters)
    return make_init_fn(model, optax.adamw(1e-3), channels=1, seed=0)()


@pytest.fixture(scope="module")
def state():
    return make_state(filters=128)


def save(saved, state, notes):
    saved.save(int(state.step), state.arrays, notes)


def restore(saved, state):
    step, arrays, notes = saved.restore(state.arrays)
    return state.at(step, arrays), notes


def at(state, step):
    """The same state after `step` updates, with `step` as the value of every parameter."""
    params = jax.tree.map(lambda a: jnp.full_like(a, step), state.params)
    return state.replace(step=jnp.int32(step), params=params)


@pytest.mark.parametrize(
    "last,kept", [(2, [2]), (4, [3, 4]), (6, [3, 4, 6]), (8, [3, 7, 8]), (9, [3, 7, 9])]
)
def test_keeps_snapshots_and_until_the_last_the_newest_two(tmp_path, state, last, kept):
    with LocalCheckpoints(tmp_path, snapshots=[3, 7, 9]) as saved:
        for step in (2, 3, 4, 6, 7, 8, 9):
            if step <= last:
                save(saved, at(state, step), {})
    assert checkpoints.saved_steps(tmp_path) == kept


def test_restores_the_newest_step_exactly(tmp_path, state):
    with LocalCheckpoints(tmp_path, snapshots=[3]) as saved:
        save(saved, at(state, 3), {})
        save(saved, at(state, 5), {})
    with LocalCheckpoints(tmp_path, snapshots=[3]) as saved:
        restored, _ = restore(saved, state)
    assert int(restored.step) == 5
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.params, at(state, 5).params)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)


def test_a_save_is_not_disturbed_by_updates_that_donate_its_arrays(tmp_path, state):
    update = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0)
    copy = jax.tree.map(jnp.copy, at(state, 1).params)
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        save(saved, state.replace(step=jnp.int32(1), params=copy), {})
        for _ in range(50):
            copy = update(copy)
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        restored, _ = restore(saved, state)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(restored.params))


def test_an_empty_folder_restores_nothing(tmp_path, state):
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        assert saved.restore(state.arrays) == (0, None, {})
    assert checkpoints.saved_steps(tmp_path / "none") == []


def test_variables_are_restored_without_the_optimizer(tmp_path, state):
    with LocalCheckpoints(tmp_path, snapshots=[4]) as saved:
        save(saved, at(state, 4), {})
    like = {"params": state.params, "batch_stats": state.batch_stats}
    variables = checkpoints.restore_variables(tmp_path, 4, like)
    assert variables.keys() == {"params", "batch_stats"}
    assert all((leaf == 4).all() for leaf in jax.tree.leaves(variables["params"]))
    with pytest.raises(UserError, match="no step 5"):
        checkpoints.restore_variables(tmp_path, 5, like)


def test_refuses_another_network_and_names_an_array(tmp_path, state):
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        save(saved, at(state, 1), {})
    wider = make_state(filters=129)
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        with pytest.raises(UserError, match="down_1/layer"):
            restore(saved, wider)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("saved")
    with LocalCheckpoints(folder, snapshots=[3, 5]) as saved:
        save(saved, at(state, 3), {"loss": [0.5]})
        save(saved, at(state, 5), {"loss": [0.25, 0.125]})
    return folder


def outcome(folder, state) -> str:
    """Return "harmless" or "detected" for a folder whose step 5 was damaged.

    If the damage is detected, `restore` falls back to step 3. Otherwise step 5 must be
    restored exactly, and also pass `verify_checkpoint` and `restore_variables`, which
    ensembles use.
    """
    like = {"params": state.params, "batch_stats": state.batch_stats}
    with LocalCheckpoints(folder, snapshots=[3, 5]) as saved:
        restored, notes = restore(saved, state)
    step = int(restored.step)
    assert notes == {5: {"loss": [0.25, 0.125]}, 3: {"loss": [0.5]}}[step]
    assert_same(restored, at(state, step))
    try:
        checkpoints.verify_checkpoint(folder, 5)
        variables = checkpoints.restore_variables(folder, 5, like)
    except checkpoints.CorruptCheckpointError:
        # An ensemble does not read every array: those it gets are right, or it is refused.
        with contextlib.suppress(checkpoints.CorruptCheckpointError):
            assert_same(checkpoints.restore_variables(folder, 5, like), at(state, 5))
        return "detected"
    assert step == 5
    assert_same(variables, at(state, 5))
    return "harmless"


def assert_same(restored, expected):
    """Compare a state, or the dict of its variables, with a state."""
    arrays = restored if isinstance(restored, dict) else restored.arrays
    for part in arrays:
        jax.tree.map(np.testing.assert_array_equal, arrays[part], expected.arrays[part])


def damage(two_saved, tmp_path, change):
    """Return a copy of the folder, with `change` applied to its step 5."""
    gc.collect()  # close what Orbax left open, while warnings about it are ignored
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(two_saved, folder)
    change(folder / "5")
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
            folder = damage(two_saved, tmp_path, lambda at: flip(at / name, bit))
            outcomes[str(name)] = outcome(folder, state)
    return outcomes


def test_a_flipped_bit_in_any_file_is_detected_or_harmless(two_saved, tmp_path, state):
    rng = np.random.default_rng(0)
    outcomes = flip_one_of_each_file(two_saved, tmp_path, state, rng)
    assert outcomes["seal/metadata"] == "detected"
    assert len(outcomes) > 5


def flip_anywhere(two_saved, tmp_path, state, rng):
    sizes = [(file, file.stat().st_size) for file in files(two_saved / "5")]
    place = int(rng.integers(8 * sum(size for _, size in sizes)))
    for file, size in sizes:
        if place < 8 * size:
            break
        place -= 8 * size
    name = file.relative_to(two_saved / "5")
    folder = damage(two_saved, tmp_path, lambda at: flip(at / name, place))
    return outcome(folder, state)


@pytest.mark.parametrize("seed", range(10))
def test_a_bit_flipped_anywhere_is_detected_or_harmless(
    two_saved, tmp_path, state, seed
):
    rng = np.random.default_rng(seed)
    assert flip_anywhere(two_saved, tmp_path, state, rng) in ("detected", "harmless")


@pytest.mark.slow
def test_two_hundred_bits_flipped_anywhere(two_saved, tmp_path, state):
    rng = np.random.default_rng(200)
    outcomes = [flip_anywhere(two_saved, tmp_path, state, rng) for _ in range(200)]
    by_file = flip_one_of_each_file(two_saved, tmp_path, state, rng)
    print(collections.Counter(outcomes), by_file)
    # A quarter of the bytes is never read, and which bits are drawn differs between saves.
    assert outcomes.count("detected") > 100


@pytest.mark.parametrize("damaged", ["truncated", "missing"])
@pytest.mark.slow
def test_a_truncated_or_missing_file_is_detected_or_harmless(
    two_saved, tmp_path, state, damaged
):
    outcomes = []
    for file in files(two_saved / "5"):
        name = file.relative_to(two_saved / "5")

        def change(at):
            if damaged == "missing":
                (at / name).unlink()
            else:
                os.truncate(at / name, file.stat().st_size // 2)

        outcomes.append(outcome(damage(two_saved, tmp_path, change), state))
    assert "detected" in outcomes


def test_detects_an_emptied_folder_and_that_of_another_step(two_saved, tmp_path, state):
    def empty(at):
        shutil.rmtree(at)
        at.mkdir()

    def exchange(at):
        shutil.rmtree(at)
        shutil.copytree(at.parent / "3", at)

    for change in (empty, exchange):
        assert outcome(damage(two_saved, tmp_path, change), state) == "detected"


def test_a_damaged_step_is_reported_skipped_and_saved_again(
    two_saved, tmp_path, state, capsys
):
    folder = damage(two_saved, tmp_path, lambda at: (at / "seal/metadata").unlink())
    with LocalCheckpoints(folder, snapshots=[3, 5]) as saved:
        assert int(restore(saved, state)[0].step) == 3
        assert capsys.readouterr().out.count("checkpoints/5 is damaged") == 1
        save(saved, at(state, 5), {"loss": [0.25, 0.125]})
    assert outcome(folder, state) == "harmless"


def test_a_damaged_step_is_not_counted_among_the_newest(tmp_path, state):
    """After a fault in 3 and a save on the way there, 1 is still there to fall back to."""
    with LocalCheckpoints(tmp_path / "c", snapshots=[9]) as saved:
        for step in (1, 3):
            save(saved, at(state, step), {})
    (tmp_path / "c/3/seal/metadata").write_text("broken")
    with LocalCheckpoints(tmp_path / "c", snapshots=[9]) as saved:
        assert int(restore(saved, state)[0].step) == 1
        save(saved, at(state, 2), {})
    assert checkpoints.saved_steps(tmp_path / "c") == [1, 2, 3]
    with LocalCheckpoints(tmp_path / "c", snapshots=[9]) as saved:
        assert int(restore(saved, state)[0].step) == 2
        save(saved, at(state, 4), {})  # beyond the damaged one, which is of no use now
    assert checkpoints.saved_steps(tmp_path / "c") == [2, 4]


@pytest.mark.parametrize("item", ["seal", "state"])
def test_a_checkpoint_that_the_disk_does_not_give_is_not_taken_for_damaged(
    two_saved, state, monkeypatch, item
):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    with LocalCheckpoints(two_saved, snapshots=[3, 5]) as saved:
        reader = (ocp.Checkpointer, "restore")
        where = (Path, "read_bytes") if item == "seal" else reader
        with monkeypatch.context() as m, pytest.raises(UserError) as e:
            m.setattr(*where, fail)
            restore(saved, state)
    assert "5 cannot be read: " in e.value.what and "Input/output" in e.value.what
    assert not isinstance(e.value, CorruptCheckpointError)


def test_refuses_to_save_a_state_that_is_not_finite(tmp_path, state):
    params = jax.tree.map(lambda a: a.at[(0,) * a.ndim].set(jnp.inf), state.params)
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        with pytest.raises(UserError, match="diverged: after step 7 params/"):
            save(saved, state.replace(step=jnp.int32(7), params=params), {})
    assert checkpoints.saved_steps(tmp_path) == []


def test_refuses_a_disk_without_room_and_says_how_much_is_needed(
    tmp_path, state, monkeypatch
):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with LocalCheckpoints(tmp_path, snapshots=[3, 5]) as saved:
        with pytest.raises(UserError, match="has 0.0 MB free") as e:
            saved.check_room(state.arrays)
    assert "5 checkpoints of" in e.value.rule


def test_saved_steps_need_no_more_room(tmp_path, state, monkeypatch):
    with LocalCheckpoints(tmp_path, snapshots=[]) as saved:
        save(saved, at(state, 1), {})
        saved.wait()
        files = [f for f in (tmp_path / "1").rglob("*") if f.is_file()]
        size = sum(a.nbytes for a in jax.tree.leaves(state.arrays))
        needed = 3 * (1.1 * size + 2e5) + 1e6  # without what is there
        free = int(needed - sum(f.stat().st_size for f in files) / 2)
        usage = shutil._ntuple_diskusage(10**9, 10**9 - free, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        saved.check_room(state.arrays)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, mounted for the test."""
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

    def noisy(step):  # constants would be compressed
        params = jax.tree.map(
            lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), state.params
        )
        return state.replace(step=jnp.int32(step), params=params)

    with pytest.raises(UserError, match="No space left on device") as e:
        with LocalCheckpoints(small_disk, snapshots=range(100)) as saved:
            for step in range(100):
                save(saved, noisy(step), {})
    good = checkpoints.saved_steps(small_disk)[-1]
    assert f"it resumes from step {good}" in e.value.remedy
    assert "MB are free" in e.value.rule
    assert {p.name for p in small_disk.iterdir()} == {str(s) for s in range(good + 1)}
    checkpoints.verify_checkpoint(small_disk, good)
