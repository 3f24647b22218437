"""The whole prediction: masks of many inputs, with their table, record and pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.inference.plan import index_of, require_table
from lungseg_jax.inference.predict_files import predict_files
from lungseg_jax.inference.prediction_record import (
    describe_weights,
    is_prediction_record,
    options_record,
    prediction_record,
)
from lungseg_jax.inference.prediction_table import PredictionTable
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.provenance import Provenance
from lungseg_jax.inference.resumption import Remainder, find_remainder
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting.index_page import is_own_page, write_index_page
from lungseg_jax.reporting.volume_page import write_volume_page
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize
from lungseg_jax.runtime.files import write_json


def run_prediction(
    segmenter: LungSegmenter,
    tasks: Sequence[PredictionTask],
    out: Path,
    *,
    csv: Path | None = None,
    json: Path | None = None,
    labels: str = "lung",
    volume_cleanup: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    network: Mapping[str, Any],
) -> None:
    """Write the masks of all tasks, and what belongs to them.

    Args:
      segmenter: the trained ensemble.
      tasks: of `plan_outputs`.
      out: the mask, or the folder of the masks, that was given to `plan_outputs`.
      csv: file for a row for each slice and each volume.
      json: file for the same data, with outputs, weights and skipped inputs.
      labels: a key of `LABELS`.
      volume_cleanup: see `clean_volume`.
      resume: keep the masks in a folder that are there, and predict the rest.
      overwrite: whether, with `resume`, outputs may be replaced that are incomplete or not
        of this command.
      network: the options that chose the weights, for the JSON file.

    Raises:
      UserError: masks or their results cannot be kept, an input cannot be used or an
        output not written. A volume that cannot be used among several tasks is skipped; the
        error comes last.
    """
    is_folder = all(task.target != out for task in tasks)
    provenance = Provenance(out if is_folder else None)
    remainder = Remainder(tasks, [], [])
    if resume:
        require_table(tasks, out, csv=csv, json=json)
        if not overwrite:
            _check_replaceable(out, json, index_of(tasks, out))
        if is_folder or not out.exists():
            remainder = _find_remainder(tasks, csv, provenance, overwrite=overwrite)
    weights = describe_weights(segmenter)
    options = {
        "volume_cleanup": volume_cleanup,
        "labels": labels,
        "flips": segmenter.flips,
    }
    provenance.plan(
        remainder.tasks, options_record(weights, options), kept=remainder.kept
    )
    with PredictionTable(
        csv,
        domain=segmenter.trained.domain,
        review_below=segmenter.settings.review_below,
        kept=remainder.rows,
        collect=json is not None,
    ) as table:
        skipped = predict_files(
            segmenter,
            remainder.tasks,
            table,
            volume_cleanup=volume_cleanup,
            labels=labels,
            write_page=write_volume_page,
            skip=len(tasks) > 1,
            begin=provenance.begin,
            done=provenance.add,
        )
    if json:
        options = {**network, **options}
        write_json(
            json,
            prediction_record(weights, tasks, table.rows, skipped, options=options),
        )
    page = _write_index(out, tasks, skipped, table) or _only_page(tasks)
    count = len(remainder.tasks)
    _say_result(out, table.summary(), count - len(skipped), page)
    if skipped:
        what = f"{pluralize(count, 'input')}, skipped"
        raise combine_errors(list(skipped.values()), what, always=True)


def _find_remainder(
    tasks: Sequence[PredictionTask],
    csv: Path | None,
    provenance: Provenance,
    *,
    overwrite: bool,
) -> Remainder:
    """Call `find_remainder`, and say what it has found."""
    remainder = find_remainder(tasks, csv, provenance, overwrite=overwrite)
    done, left = pluralize(len(remainder.kept), "mask"), len(remainder.tasks)
    progress.say(f"{done} already there, {left} to do")
    return remainder


def _check_replaceable(out: Path, json: Path | None, index: Path | None) -> None:
    """Refuse to resume over files of unknown origin.

    Args:
      out: the mask, or the folder of the masks.
      json: file for the results, or None.
      index: the page of several volumes, or None.

    Raises:
      UserError: `out` is a file, or the others exist and are of another kind.
    """
    if out.is_file():
        raise UserError(
            f"the mask {out} is already there.",
            rule="--resume continues a folder of masks, which records what each was made "
            "with.",
            remedy="add --overwrite to predict it again, or name another output.",
        )
    foreign = []
    if json and json.exists() and not is_prediction_record(json):
        foreign.append(str(json))
    if index and index.exists() and not is_own_page(index):
        foreign.append(str(index))
    if foreign:
        raise UserError(
            f"{' and '.join(foreign)} would be replaced.",
            rule="--resume replaces only results that this command has written.",
            remedy="name another output, or add --overwrite.",
        )


def _write_index(
    out: Path,
    tasks: Sequence[PredictionTask],
    skipped: Mapping[str, UserError],
    table: PredictionTable,
) -> Path | None:
    """Write and return the page that links to those of several volumes, if there is one."""
    if index := index_of(tasks, out):
        pages = {task.name: task.page for task in tasks if task.page}
        reasons = {name: e.what for name, e in skipped.items() if name in pages}
        write_index_page(index, pages, table.volumes, reasons)
    return index


def _only_page(tasks: Sequence[PredictionTask]) -> Path | None:
    """Return the page of a volume that is the only one."""
    pages = [task.page for task in tasks if task.page and task.page.exists()]
    return pages[0] if len(pages) == 1 else None


def _say_result(out: Path, summary: str, masks: int, page: Path | None) -> None:
    if summary:
        progress.say(summary)
    progress.say(f"wrote {pluralize(masks, 'mask')} to {out}")
    if page:
        progress.say(f"page: {page}")
