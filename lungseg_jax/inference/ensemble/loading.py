"""The snapshots of a run, restored for use."""

import contextlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.weights import read_weights
from lungseg_jax.inference.ensemble.members import AVERAGE, EVERY, select_members
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble, abstract_members
from lungseg_jax.runtime import cache, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training import run_record
from lungseg_jax.training.config import preprocessing, snapshot_steps
from lungseg_jax.training.run_folder import RunFolder


def load_run(folder: RunFolder, members: str = "all") -> TrainedEnsemble:
    """Restores the chosen members of a run, without the optimizer.

    Args:
      folder: of the run.
      members: see `select_members`.

    Raises:
      UserError: no run, no such members, or checkpoints that are damaged or of another
        network.
    """
    config, run = run_record.read_run(folder)
    with contextlib.suppress(UserError):  # a run is of use without its cache, too
        cache.enable_compilation_cache(cache.cache_root(config.cache_dir))
    saved = checkpoints.saved_steps(folder.checkpoints)
    snapshots = [step for step in snapshot_steps(config) if step in saved]
    if members in ("all", EVERY):
        _check_none_is_lost(folder, config, saved)
    if len(snapshots) < len(snapshot_steps(config)):
        progress.say(
            f"the run is not finished: {len(snapshots)} of "
            f"{len(snapshot_steps(config))} snapshots"
        )
    tuning = run_record.read_tuning(folder, snapshots) or {}
    names = select_members(
        members,
        snapshots=[str(step) for step in snapshots],
        tuned=_tuned(tuning),
    )
    model = config.model.to_dict()
    like = abstract_members(model, config.data.preprocessing)
    return TrainedEnsemble(
        path=folder.path,
        model=model,
        preprocessing=preprocessing(config),
        threshold=config.evaluate.threshold,
        batch_size=config.evaluate.batch_size,
        domain=run["data"].get("domain", "unknown"),
        members={name: _restore(folder, name, names, like) for name in names},
        tuning=tuning,
    )


def _tuned(tuning: Mapping[str, Any]) -> dict[str, list[str]]:
    """Members by choice; "all" and "last" need no tuning."""
    choices = tuning.get("choices", {})
    return {name: settings["members"] for name, settings in choices.items()}


def _restore(folder: RunFolder, name: str, names: list[str], like: Any) -> Any:
    if name == AVERAGE:
        return read_weights(folder.average, like)[0][AVERAGE]
    try:
        return checkpoints.restore_variables(folder.checkpoints, int(name), like)
    except checkpoints.CorruptCheckpointError as e:
        others = ",".join(other for other in names if other != name)
        choice = f"leave it out with --members={others} in evaluate and predict; or "
        raise UserError(
            e.what,
            rule="a damaged snapshot is never part of an ensemble.",
            remedy=(choice if others else "") + e.remedy,
        ) from e


def _check_none_is_lost(folder: RunFolder, config: ConfigDict, saved) -> None:
    due = run_record.due_snapshots(config, folder, saved)
    lost = [str(step) for step in due if step not in saved]
    if lost:
        left = ",".join(str(step) for step in due if step in saved)
        raise UserError(
            f"{folder.checkpoints} has lost the snapshots {', '.join(lost)}.",
            rule="all snapshots of a run make its ensemble.",
            remedy=f"choose those that are left with --members={left or 'NONE'} in "
            "evaluate and predict, or train again in another folder.",
        )
