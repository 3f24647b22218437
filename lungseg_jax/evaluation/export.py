"""Runs as a bundle, with the scores of its members."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lungseg_jax.evaluation.deep_ensemble import combine_runs
from lungseg_jax.evaluation.results import scores_of
from lungseg_jax.inference.ensemble import bundle
from lungseg_jax.inference.ensemble.location import is_bundle, require_run
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder


def export_runs(
    out: Path,
    folders: Sequence[str | PathLike],
    members: str = "all",
    *,
    data: Path | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    may_exist: bool = False,
) -> None:
    """Write a bundle of a run, or of several that become one ensemble; see `combine_runs`.

    Args:
      out: the folder of the bundle.
      folders: of the runs.
      members: those of each run; see `select_members`.
      data: where the data folder of several runs is now; None if it has not moved.
      license, datasets: for the model card.
      may_exist: whether `out` may be this bundle already, which is then left as it is.

    Raises:
      UserError: `out` exists, or is another bundle; or the runs cannot be used.
    """
    is_there = may_exist and is_bundle(out)
    if not is_there:
        bundle.require_new(out)
    runs = [Run.open(RunFolder(require_run(folder))) for folder in folders]
    trained, evaluation = _load(runs, members, data)
    scores = evaluation and scores_of(evaluation, list(trained.members))
    if not scores:
        progress.say(
            "the run has no scores of these members, so the model card has none"
        )
    record = {
        "name": runs[0].config.name,
        "data": runs[0].record["data"],
        "versions": runs[0].record["versions"],
        "evaluation": scores,
        "license": license,
        "datasets": list(datasets),
    }
    if is_there:
        bundle.require_same(out, trained, record)
        return
    bundle.write_bundle(out, trained, record)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    networks = pluralize(len(trained.members), "network")
    progress.say(f"wrote {out}: {networks}, {size:.1f} MB")


def _load(
    runs: Sequence[Run], members: str, data: Path | None
) -> tuple[TrainedEnsemble, Mapping[str, Any] | None]:
    """Return the ensemble of the runs and the content of its evaluation.json, if any."""
    if len(runs) > 1:
        return combine_runs(runs, members, data=data)
    if data:
        raise UserError(
            "--data has no effect with one --run.",
            rule="its tuning and scores are part of the run.",
            remedy="leave it out.",
        )
    return load_run(runs[0], members), runs[0].evaluation
