"""config.json and run.json: what a run is, so that no other takes its folder."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from lungseg_jax.checkpointing.manifest import (
    has_valid_checksum,
    json_digest,
    with_checksum,
)
from lungseg_jax.data.dataset import Dataset
from lungseg_jax.data.pairs import IMAGES
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import check_config, differences, snapshot_steps
from lungseg_jax.training.run_folder import RunFolder, read_json, write_json
from lungseg_jax.training.schedules import make_schedule

Split = Mapping[str, Sequence[str]]  # names by "train", "validation", "test"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "lungseg-jax")
LENGTH = ("schedule.cycles", "train.total_steps")
NEW_FOLDER = "give this run a folder of its own with --workdir=DIR."


def open_run(
    config: ConfigDict,
    folder: RunFolder,
    source: Dataset,
    split: Split,
    *,
    done: int = 0,
    extend: bool = False,
) -> None:
    """Writes config.json and run.json, or finds the same ones there.

    Args:
      config: of the run that is asked for.
      folder: that it is to have.
      source: the data.
      split: their names.
      done: steps that are saved.
      extend: take a config of another length, where those done are steps of it as well.

    Raises:
      UserError: the folder holds another run, or something else; nothing is changed.
    """
    if not folder.config.exists() or not folder.run.exists():
        refuse_what_is_no_run(folder)
        if extend:
            raise UserError(
                f"--extend: {folder.path} holds no run.",
                remedy="name the folder of the run with --workdir=DIR.",
            )
        run = _describe(source, split) | {"config_sha256": [config_digest(config)]}
        write_json(folder.run, with_checksum(run))
        write_json(folder.config, config.to_dict())
        return
    before, run = read_run(folder)
    changed = differences(before.to_dict(), config.to_dict())
    # Back to what it was before an extension is always asked for.
    extend = extend or config_digest(config) in run["config_sha256"]
    if changed and not extend:
        rows = "\n".join(f"  {row}" for row in changed)
        raise UserError(
            f"{folder.path} holds a run with other settings:\n{rows}",
            rule="a run is resumed with the settings it was started with.",
            remedy=NEW_FOLDER,
        )
    if run["data"]["fingerprint"] != source.fingerprint:
        data = before.data.dir or "the phantom dataset"
        raise UserError(
            f"{folder.path} holds a run on other files than these: those of {data}, as "
            "they were.",
            rule="a run is resumed on the files it was started with.",
            remedy=NEW_FOLDER,
        )
    if not changed:
        return
    _refuse_another_beginning(before, config, changed, done)
    digests = [config_digest(config), *run["config_sha256"]]
    write_json(folder.run, with_checksum(run | {"config_sha256": digests}))
    write_json(folder.config, config.to_dict())


def due_snapshots(config: ConfigDict, folder: RunFolder, saved: Sequence[int]) -> list:
    """The snapshots that a run has to have: of what is saved, and of what is scored."""
    scored = (read_evaluation(folder) or {"members": ()})["members"]
    reached = max([0, *saved, *map(int, scored)])
    return [step for step in snapshot_steps(config) if step <= reached]


def read_evaluation(folder: RunFolder) -> dict | None:
    """evaluation.json; None where there is none that is whole: it can be made anew."""
    return _read_whole(folder.evaluation)


def read_tuning(folder: RunFolder, snapshots: Sequence[int]) -> dict | None:
    """tuning.json; None where there is none that is whole and of these snapshots."""
    tuning = _read_whole(folder.tuning)
    names = [str(step) for step in snapshots]
    return tuning if tuning and tuning["choices"]["all"]["members"] == names else None


def _read_whole(file: Path) -> dict | None:
    try:
        content = read_json(file)
    except UserError:
        return None
    return content if has_valid_checksum(content) else None


def read_run(folder: RunFolder) -> tuple[ConfigDict, dict]:
    """config.json and run.json of a run.

    Raises:
      UserError: there is no run, or one of the files was changed since it was written.
    """
    folder.require()
    try:
        config, run = ConfigDict(read_json(folder.config)), read_json(folder.run)
        run_is_whole = has_valid_checksum(run)
        config_is_whole = config_digest(config) in run["config_sha256"]
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(
            f"{folder.path} is not the folder of a run, or is damaged: {e}.",
            rule=f"{folder.config.name} and {folder.run.name} are as a training left them.",
        ) from e
    if not run_is_whole:
        raise _changed(folder.run)
    if not config_is_whole:
        raise _changed(folder.config)
    check_config(config)
    return config, run


def trained_on(run: Mapping, digests: Mapping[str, str]) -> int:
    """How many images of a data folder a run was trained on, whatever their names.

    Args:
      run: of `read_run`.
      digests: sha256 of each file, by its path in the folder.
    """
    train = set(run["split"]["train"])
    seen = {d for path, d in _images(run["sha256"]) if Path(path).stem in train}
    return sum(digest in seen for _, digest in _images(digests))


def _images(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    return [row for row in digests.items() if Path(row[0]).parent.name == IMAGES]


def refuse_what_is_no_run(folder: RunFolder) -> None:
    """Lets a run, a beginning of one, an empty folder or none at all pass.

    Raises:
      UserError: it is something else.
    """
    if not folder.path.exists() or folder.config.exists() and folder.run.exists():
        return
    if not folder.path.is_dir():
        raise UserError(f"{folder.path} is a file.", remedy=NEW_FOLDER)
    # Hidden files are ours; run.json alone is a start that was cut off.
    names = {p.name for p in folder.path.iterdir() if not p.name.startswith(".")}
    if not names <= {folder.run.name}:
        raise UserError(
            f"{folder.path} is not empty and holds no run.", remedy=NEW_FOLDER
        )


def _refuse_another_beginning(before, config, changed: list[str], done: int) -> None:
    """The steps that are done have to be steps of the run of another length."""
    other = [row for row in changed if row.split(":")[0] not in LENGTH]
    if other:
        rows = "\n".join(f"  {row}" for row in other)
        raise UserError(
            f"--extend cannot change other settings:\n{rows}",
            rule=f"{' and '.join(LENGTH)} alone make a run longer.",
            remedy=NEW_FOLDER,
        )
    if config.train.total_steps < done:
        raise UserError(
            f"train.total_steps={config.train.total_steps}: {done} steps are done.",
            rule="a run can be made longer.",
            remedy=NEW_FOLDER,
        )
    steps = np.arange(done)
    rates = [
        jax.vmap(make_schedule(total_steps=c.train.total_steps, **c.schedule))(steps)
        for c in (before, config)
    ]
    if not np.allclose(*rates, rtol=1e-5, atol=0):
        raise UserError(
            f"--extend: with {', '.join(changed)} the steps that are done would have had "
            "other learning rates.",
            rule="a run is made longer by whole cycles: of "
            f"{before.schedule.cycles} in {before.train.total_steps} steps, each "
            f"{before.schedule.growth:g} times the length of the one before.",
            remedy="set both config.schedule.cycles and config.train.total_steps.",
        )


def config_digest(config: ConfigDict) -> str:
    """What run.json says of config.json."""
    return json_digest(config.to_dict())


def _changed(file: Path) -> UserError:
    return UserError(
        f"{file} was changed since it was written.",
        rule="it says what the checkpoints beside it are.",
        remedy="restore it from a copy, or train again with --workdir=DIR.",
    )


def _describe(source: Dataset, split: Split) -> dict:
    return {
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "data": {
            "variant": source.variant,
            "fingerprint": source.fingerprint,
            "dtype": source.dtype,
            "domain": source.checked.domain,
        },
        "split": {name: list(names) for name, names in split.items()},
        "sha256": dict(source.digests),
    }
