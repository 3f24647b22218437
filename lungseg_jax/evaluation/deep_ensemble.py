"""A deep ensemble: networks of several runs that differ in their seeds.

Their errors are less alike than those of the snapshots of one run.

Source: Lakshminarayanan et al., arXiv:1612.01474.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.evaluation.run_scores import evaluate_on_test, tune_on_validation
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.ensemble.views import assign_views
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_data import load_dataset_of_run

SHARED = ("model", "preprocessing", "threshold", "domain")  # by all members


def combine_runs(
    runs: Sequence[Run], members: str = "all", *, data: Path | None = None
) -> tuple[TrainedEnsemble, dict[str, Any]]:
    """Join members of several runs, tune them on the validation split and score them.

    Args:
      runs: at least two, of the same network, on the same split of the same data.
      members: those of each run; see `select_members`.
      data: where the data folder is now; None if it has not moved.

    Returns:
      The ensemble, whose members are called RUN:MEMBER in the order of the runs, and the
      content of an evaluation.json, for the test split.

    Raises:
      UserError: the runs differ or have the same name, or the data are missing or have
        changed.
    """
    _require_names(runs)
    ensembles = [load_run(run, members) for run in runs]
    first, run = ensembles[0], runs[0]
    for other, trained in zip(runs[1:], ensembles[1:], strict=True):
        _require_alike(run, first, other, trained)
    networks = {
        f"{run.folder.name}:{name}": variables
        for run, trained in zip(runs, ensembles, strict=True)
        for name, variables in trained.members.items()
    }
    is_mirrored = run.config.evaluate.mirror_members
    views = assign_views(list(networks)) if is_mirrored else {}
    joined = dataclasses.replace(first, members=networks, views=views, tuning={})
    dataset = load_dataset_of_run(run, data)
    tuning = tune_on_validation(joined, run, dataset)
    joined = dataclasses.replace(joined, tuning=tuning)
    return joined, evaluate_on_test(joined, run, dataset)


def _require_names(runs: Sequence[Run]) -> None:
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        raise UserError(
            f"several runs have the same name: {', '.join(names)}.",
            rule="members are named after the folders of their runs.",
            remedy="name each run once, and rename folders that are called the same.",
        )


def _require_alike(
    run: Run, trained: TrainedEnsemble, other: Run, its: TrainedEnsemble
) -> None:
    pairs = {name: (getattr(trained, name), getattr(its, name)) for name in SHARED}
    pairs |= {
        "data": tuple(r.record["data"]["fingerprint"] for r in (run, other)),
        "split": (run.record["split"], other.record["split"]),
    }
    different = [name for name, (one, two) in pairs.items() if one != two]
    if different:
        raise UserError(
            f"{run.folder.path} and {other.folder.path} differ in:\n"
            f"{bullet_list(different)}",
            rule="the runs of an ensemble have the same network, data and split, so that "
            "no member was trained on the slices that tune and score it.",
            remedy="train them with the same options but for --config.seed.",
        )
