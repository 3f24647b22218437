"""Segment the files of a plan: slices in batches, volumes slice by slice.

One network is compiled for all inputs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from lungseg_jax.inference.outputs import LABELS
from lungseg_jax.inference.predict_slices import check_slices, predict_slices
from lungseg_jax.inference.predict_volume import predict_volume
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.inference.volume_view import VolumeView
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, unknown_name


def predict_files(
    segmenter: LungSegmenter,
    tasks: Sequence[PredictionTask],
    table: PredictionTable,
    *,
    volume_cleanup: bool = True,
    labels: str = "lung",
    write_page: Callable[[Path, VolumeView], None] = lambda path, view: None,
    skip: bool = False,
    begin: Callable[[], object] = lambda: None,
    done: Callable[[PredictionTask], object] = lambda task: None,
) -> dict[str, UserError]:
    """Segment every input and write the outputs of its task.

    Args:
      segmenter: the trained ensemble.
      tasks: returned by `plan_outputs`.
      table: receives a row for each slice and each volume.
      volume_cleanup: see `clean_volume`.
      labels: a key of LABELS.
      write_page: writes the page of a volume, where the task has one.
      skip: whether volumes that cannot be used are skipped.
      begin: called before anything is written for a task.
      done: called after everything has been written for one.

    Returns:
      The errors of the volumes that were skipped, by the name of their task. They have no
      mask.

    Raises:
      UserError: a slice, or a volume that is not skipped, cannot be used: nothing is
        written of it; of slices, nothing at all. Or the table cannot be written.
    """
    _require_labels(labels, tasks)
    volumes = [task for task in tasks if task.is_volume]
    slices = [task for task in tasks if not task.is_volume]
    if slices:
        check_slices(segmenter, slices)
        begin()
        predict_slices(segmenter, slices, table, done)
    skipped = {}
    for task in volumes:
        try:
            predict_volume(
                segmenter,
                task,
                table,
                volume_cleanup=volume_cleanup,
                labels=labels,
                write_page=write_page,
                begin=begin,
            )
        except UserError as e:
            # A volume in the table is complete: the table, or its mask, cannot be written.
            is_complete = any(row["input"] == task.name for row in table.volumes)
            if is_complete or not skip:
                raise
            progress.say(f"skipped: {e.what}")
            skipped[task.name] = e
        else:
            done(task)
    return skipped


def _require_labels(labels: str, tasks: Sequence[PredictionTask]) -> None:
    if labels not in LABELS:
        raise unknown_name("labels", labels, LABELS)
    slices = [task.source for task in tasks if not task.is_volume]
    if labels == "sides" and slices:
        raise UserError(
            f"labels=sides: {slices[0]} is a slice.",
            rule="a slice does not say which side of the patient it shows; a volume does.",
            remedy="leave --labels out, or predict volumes.",
        )
