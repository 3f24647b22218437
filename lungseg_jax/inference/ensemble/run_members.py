"""The members of a run, restored from its checkpoints."""

from typing import Any

from lungseg_jax.checkpointing import checkpoints
from lungseg_jax.checkpointing.manifest import CorruptCheckpointError
from lungseg_jax.inference.ensemble.members import AVERAGE, EVERY, Every, select_members
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble, abstract_members
from lungseg_jax.inference.ensemble.views import assign_views
from lungseg_jax.runtime import cache, compilation, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import prediction_preprocessing_of
from lungseg_jax.training.run import Run


def load_run(run: Run, members: str | Every = "all") -> TrainedEnsemble:
    """Restore members of a run, without the optimizer.

    Args:
      run: the run.
      members: see `select_members`.

    Raises:
      UserError: no such members, or checkpoints that are damaged or of another network.
    """
    config = run.config
    if root := cache.root_if_possible(config.cache_dir):
        compilation.enable_compilation_cache(root)
    is_last_lost = run.planned_snapshots[-1] in run.lost_snapshots
    if members in ("all", EVERY) or (members == "last" and is_last_lost):
        _require_all_snapshots(run)
    if len(run.snapshots) + len(run.lost_snapshots) < len(run.planned_snapshots):
        progress.say(
            f"the run is not finished: it has {len(run.snapshots)} of "
            f"{len(run.planned_snapshots)} snapshots"
        )
    choices = run.tuning.get("choices", {})
    names = select_members(
        members,
        snapshots=[str(step) for step in run.snapshots],
        tuned={choice: tuned["members"] for choice, tuned in choices.items()},
    )
    model = config.model.to_dict()
    preprocessing = prediction_preprocessing_of(config)
    like = abstract_members(model, preprocessing.channels)
    return TrainedEnsemble(
        path=run.folder.path,
        model=model,
        preprocessing=preprocessing,
        threshold=config.evaluate.threshold,
        batch_size=config.evaluate.batch_size,
        domain=run.record["data"].get("domain", "unknown"),
        members={name: _restore(run, name, names, like) for name in names},
        views=assign_views(run.planned_names) if config.evaluate.mirror_members else {},
        tuning=run.tuning,
    )


def _restore(run: Run, name: str, names: list[str], like: Any) -> Any:
    if name == AVERAGE:
        return run.read_average(like)[0]
    try:
        return checkpoints.restore_variables(run.folder.checkpoints, int(name), like)
    except CorruptCheckpointError as e:
        rest = ",".join(member for member in names if member not in (name, AVERAGE))
        choice = f"leave it out with --members={rest} in evaluate and predict; or "
        raise UserError(
            e.what,
            rule="a damaged snapshot is never part of an ensemble.",
            remedy=(choice if rest else "") + e.remedy,
        ) from e


def _require_all_snapshots(run: Run) -> None:
    lost = [str(step) for step in run.lost_snapshots]
    if lost:
        left = ",".join(str(step) for step in run.snapshots)
        choice = (
            f"choose what is left with --members={left} in evaluate and predict, or "
        )
        raise UserError(
            f"{run.folder.checkpoints} has lost the snapshots {', '.join(lost)}.",
            rule="the ensemble consists of all snapshots of a run.",
            remedy=(choice if left else "") + "train again in another folder.",
        )
