"""Which image gives which mask, and what is refused before a network is loaded."""

import numpy as np
import pytest

from lungseg_jax.data.writers import write_image
from lungseg_jax.errors import UserError
from lungseg_jax.predict import _check_inputs, plan


@pytest.fixture
def images(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "in" / f"{name}.tif", np.zeros((4, 4), np.int16))
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "in").mkdir()


def test_a_file_for_a_file_and_a_folder_for_a_folder(images, tmp_path):
    assert plan(images, tmp_path / "out", overwrite=False) == {
        images / name: tmp_path / "out" / name for name in ("a.tif", "b.tif")
    }
    one = plan(images / "a.tif", tmp_path / "m.png", overwrite=False)
    assert one == {images / "a.tif": tmp_path / "m.png"}


def test_an_input_is_not_written_to_by_any_name(images, tmp_path):
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(UserError, match="own input"):
        plan(images, tmp_path / "link", overwrite=True)


def test_a_target_that_is_a_link_to_itself(images, tmp_path):
    (tmp_path / "turn.png").symlink_to("turn.png")
    jobs = plan(images / "a.tif", tmp_path / "turn.png", overwrite=False)
    assert list(jobs.values()) == [tmp_path / "turn.png"]


def test_outputs_that_exist_are_counted(images, tmp_path):
    (tmp_path / "m.png").touch()
    with pytest.raises(UserError, match="^error: 1 output already there:"):
        plan(images / "a.tif", tmp_path / "m.png", overwrite=False)


def test_faults_of_the_inputs_come_with_their_remedies(images):
    paths = [images / "a.tif", images / "b.tif"]
    write_image(paths[0], np.zeros((4, 4), np.uint8))
    paths[1].write_bytes(b"cut")
    with pytest.raises(UserError) as e:
        _check_inputs(paths, "int16")
    lines = e.value.what.splitlines()
    assert lines[0] == "2 faults in 2 inputs, nothing was written:"
    assert sum(line.startswith("    fix:   ") for line in lines) == 2
