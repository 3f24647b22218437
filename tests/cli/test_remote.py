"""The commands on runs, bundles and data that are on object storage."""

import json

import pytest

from lungseg_jax.runtime.files import folder_path


@pytest.fixture(scope="module")
def remote(bucket, trained_run, labelled_folder):
    """The addresses of a run and of labelled slices."""
    for local, name in ((trained_run, "run"), (labelled_folder, "ct")):
        for file in local.rglob("*"):
            if file.is_file():
                target = folder_path(f"{bucket}/commands/{name}")
                (target / file.relative_to(local).as_posix()).write_bytes(
                    file.read_bytes()
                )
    return f"{bucket}/commands/run", f"{bucket}/commands/ct"


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
    masks = sorted((tmp_path / "local").iterdir())
    assert len(masks) == 3
    for mask in masks:
        assert (tmp_path / "remote" / mask.name).read_bytes() == mask.read_bytes()
    weights = [
        (tmp_path / f"{name}_bundle" / "model.safetensors").read_bytes()
        for name in ("remote", "local")
    ]
    assert weights[0] == weights[1]
