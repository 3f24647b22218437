"""The page of a run: the report of its test split."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from lungseg_jax.data.dataset import Dataset
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting.report import write_report
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_data import load_dataset_of_run
from lungseg_jax.training.run_folder import RunFolder


def write_run_page(
    run: Run, trained: TrainedEnsemble, evaluation: Mapping[str, Any], dataset: Dataset
) -> None:
    """Write the page of a run.

    Args:
      run: the run.
      trained: its members, those of the evaluation or more.
      evaluation: the content of its evaluation.json.
      dataset: its data.

    Raises:
      OSError, UserError: a file cannot be written or removed.
    """
    c = run.config
    data = PurePath(c.data.dir).name or f"{dataset.variant} data"
    write_report(
        run.folder.report,
        evaluation,
        LungSegmenter(trained.subset(list(evaluation["members"]))),
        title=f"{c.name}: {c.model.name} U-Net on {data}",
        read=dataset.slices,
    )


def rewrite_run_page(folder: Path, data: Path | None = None) -> Path:
    """Write the page of a finished run again, from its folder and its data.

    Args:
      folder: the run folder.
      data: where the data folder is now; None if it has not moved.

    Returns:
      The page.

    Raises:
      UserError: the run is not finished, its data are missing or have changed, or the
        page cannot be written.
    """
    run = Run.open(RunFolder(folder))
    if not run.lost_snapshots:  # which `load_run` reports
        _require_scores(run)
    run.folder.require_writable()
    trained = load_run(run)
    dataset = load_dataset_of_run(run, data)
    with run.folder.claimed():
        try:
            write_run_page(run, trained, run.evaluation, dataset)
        except OSError as e:
            raise UserError(f"the page could not be written: {e}") from e
    return run.folder.page


def _require_scores(run: Run) -> None:
    """Refuse a run that has not been scored with all of its snapshots."""
    names = run.planned_names
    missing = []
    if len(run.snapshots) < len(names):
        missing.append(f"{len(names) - len(run.snapshots)} of {len(names)} snapshots")
    if not run.tuning:
        missing.append(run.folder.tuning.name)
    if not run.evaluation or list(run.evaluation["members"]) != names:
        missing.append(run.folder.evaluation.name)
    if missing:
        raise UserError(
            f"{run.folder.path} is not finished: it lacks {', '.join(missing)}.",
            rule="the page shows the scores of all snapshots on the test split.",
            remedy="run the command that started it again; it does what is left.",
        )
