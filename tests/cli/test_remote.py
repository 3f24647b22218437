"""The commands on runs, bundles and data that are on object storage."""

import json

import pytest

from lungseg_jax.checkpointing.checkpoints import saved_steps
from lungseg_jax.checkpointing.remote_steps import upload_step
from lungseg_jax.runtime.files import folder_path


@pytest.fixture(scope="module")
def remote(bucket, trained_run, labelled_folder):
    """The addresses of a run and of labelled slices."""
    addresses = f"{bucket}/commands/run", f"{bucket}/commands/ct"
    for local, address in zip((trained_run, labelled_folder), addresses, strict=True):
        for file in local.rglob("*"):
            if file.is_file() and "checkpoints" not in file.parts:
                target = folder_path(address) / file.relative_to(local).as_posix()
                target.write_bytes(file.read_bytes())
    checkpoints = folder_path(addresses[0]) / "checkpoints"
    for step in saved_steps(trained_run / "checkpoints"):
        upload_step(trained_run / "checkpoints", checkpoints, step)
    return addresses


def test_commands_read_a_run_where_it_is(
    remote, trained_run, labelled_folder, lungseg_here, tmp_path
):
    run, data = remote

    def done(*words):
        result = lungseg_here(*words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr

    done("verify", f"--run={run}")
    for name, source, slices in (
        ("remote", run, data),
        ("local", trained_run, labelled_folder),
    ):
        done("evaluate", f"--run={source}", f"--data={slices}", f"--json={name}.json")
        done("predict", f"--run={source}", labelled_folder / "2d_images", name)
        done("export", f"--run={source}", f"{name}_bundle")
    scores = [
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("remote", "local")
    ]
    assert scores[0]["slices"] == scores[1]["slices"]
    masks = sorted((tmp_path / "local").glob("[!.]*"))
    assert len(masks) == 3
    for mask in masks:
        assert (tmp_path / "remote" / mask.name).read_bytes() == mask.read_bytes()
    weights = [
        (tmp_path / f"{name}_bundle" / "model.safetensors").read_bytes()
        for name in ("remote", "local")
    ]
    assert weights[0] == weights[1]
