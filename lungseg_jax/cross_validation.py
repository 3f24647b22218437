"""Cross-validation: every slice is scored once, by a run that was not trained on it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from lungseg_jax.data.dataset import Dataset, load_dataset
from lungseg_jax.evaluation.evaluator import slice_metadata
from lungseg_jax.evaluation.label_audit import LabelAudit
from lungseg_jax.evaluation.results import settings_of
from lungseg_jax.experiment import run_experiment
from lungseg_jax.inference.ensemble.initial_weights import load_initial_weights
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import cache, progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import user_path, write_json
from lungseg_jax.training import config
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_data import (
    check_slices,
    check_window,
    digests_of,
    require_outside_slices,
    split_of,
)
from lungseg_jax.training.run_folder import RunFolder
from lungseg_jax.training.run_record import versioned
from lungseg_jax.training.scaling import scale_to_devices

FOLDS = 5
FOLD = re.compile(r"fold_\d+")  # the folder of a run


def cross_validate(
    c: ConfigDict, workdir: str = "", *, folds: int = FOLDS
) -> dict[str, Any]:
    """Train a run for each fold, and score every slice by the one that tests on it.

    What has been done is not repeated, so a call that was stopped is continued by the same
    call. Writes the runs, as fold_0 and so on, crossval.json, and what `LabelAudit` writes.

    Args:
      c: a complete configuration. `data.test_fraction` becomes 1 / `folds`, and
        `data.fold` the number of each.
      workdir: the folder of all of these; empty for `default_workdir` with "-crossval".
      folds: how many, at least 2.

    Returns:
      The content of crossval.json: the settings and "slices" of evaluation.json, "folds"
      [{"run", "n", "scores"}], and "ensemble", the scores of all slices together.

    Raises:
      UserError: bad input, before anything is trained.
    """
    config.check_config(c)
    folder = user_path(workdir or f"{config.default_workdir(c)}-crossval")
    require_outside_slices(folder, c)
    _require_own(folder)
    dataset = load_dataset(**config.data_of(c), cache=cache.cache_root(c.cache_dir))
    plans = _plan(c, folds)
    folders = [RunFolder(folder / f"fold_{plan.data.fold}") for plan in plans]
    planned = list(zip(plans, folders, strict=True))
    scaled_to = _devices_of_folds(folders)
    new = [plan for plan, fold in planned if not fold.holds_run]
    _check_new(new, dataset, scaled_to or jax.device_count())
    runs, evaluations = [], []
    for number, (plan, run_folder) in enumerate(planned, start=1):
        progress.say(f"{run_folder.path}: training {number} of {folds}")
        path = str(run_folder.path)
        evaluations.append(run_experiment(plan, path, scaled_to=scaled_to))
        runs.append(Run.open(run_folder))
    audit = LabelAudit(dataset.checked.metadata.spacings)
    for run in runs:
        names = run.record["split"]["test"]
        audit.add(LungSegmenter(load_run(run)), dataset.slices(names), len(names))
    result = versioned(_summarize(runs, evaluations, audit, dataset))
    audit.write(folder)
    write_json(folder / "crossval.json", result)
    progress.say(f"wrote the scores, and the audit of the labels, to {folder}")
    return result


def _require_own(folder: Path) -> None:
    """Accept an empty or missing folder, and that of a cross-validation.

    Raises:
      UserError: it is a file, or holds others, which could be overwritten.
    """
    if not folder.exists():
        return
    problem = "is a file"
    if folder.is_dir():
        # Hidden files are ours. Folds may have been trained one by one, in any order.
        names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
        if all(FOLD.fullmatch(name) for name in names):
            return
        if any(RunFolder(folder / name).holds_run for name in names):
            return
        problem = "is not empty and does not hold a cross-validation"
    raise UserError(f"{folder} {problem}.", remedy="name another: --workdir=DIR.")


def _plan(c: ConfigDict, folds: int) -> list[ConfigDict]:
    """Return the configuration of each fold.

    Raises:
      UserError: there are too few, or only one of them is asked for.
    """
    if folds < 2:
        raise UserError(
            f"folds={folds}.", rule="at least 2.", remedy="--folds=2 or more."
        )
    if c.data.fold:
        raise UserError(
            f"data.fold={c.data.fold} would have no effect.",
            rule="every fold is tested on.",
            remedy="leave it out, or train with this fold only: lungseg train.",
        )
    plans = []
    for fold in range(folds):
        plan = c.copy_and_resolve_references()
        plan.data.test_fraction, plan.data.fold = 1 / folds, fold
        config.check_config(plan)
        plans.append(plan)
    return plans


def _devices_of_folds(folders: Sequence[RunFolder]) -> int | None:
    """Return the devices that folds were scaled to, on whatever machine; None if new."""
    runs = (Run.open(folder) for folder in folders if folder.holds_run)
    recorded = (run.record.get("scaled_to_devices") for run in runs)
    return next(filter(None, recorded), None)


def _check_new(plans: Sequence[ConfigDict], dataset: Dataset, devices: int) -> None:
    """Check the data and the weights of folds that have not been started.

    Args:
      plans: their configurations.
      dataset: of all folds.
      devices: with `train.batch_per_device`, how many a fold is scaled to.

    Raises:
      UserError: they would be refused after folds before them were trained.
    """
    tested = []
    for plan in plans:
        split, scaled = split_of(plan, dataset), plan
        if plan.train.batch_per_device:
            scaled = scale_to_devices(plan, devices)
        check_slices(scaled, dataset, split)
        check_window(plan, dataset.checked)
        tested += split["test"]
    if plans and plans[0].init:
        c, test = plans[0], digests_of(dataset, tested)
        preprocessing = config.preprocessing_of(c)
        load_initial_weights(c.init, c.model.to_dict(), preprocessing, test)


def _summarize(
    runs: Sequence[Run],
    evaluations: Sequence[Mapping[str, Any]],
    audit: LabelAudit,
    dataset: Dataset,
) -> dict[str, Any]:
    """Return the content of crossval.json."""
    slices = audit.scores.slices
    patients = slice_metadata(dataset.checked.metadata, list(slices))["patients"]
    folds = [
        {"run": run.folder.path.name, "n": made["n"], "scores": made["ensemble"]}
        for run, made in zip(runs, evaluations, strict=True)
    ]
    return settings_of(evaluations[0]) | {
        "n": len(slices),
        "split": "crossval",
        "folds": folds,
        "ensemble": audit.scores.summarize(patients),
        "slices": slices,
    }
