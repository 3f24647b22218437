"""A prediction as one JSON object, which docs/reference/file_formats.md describes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lungseg_jax
from lungseg_jax.checkpointing.checksums import json_digest
from lungseg_jax.checkpointing.manifest import tree_digest
from lungseg_jax.inference.outputs import LABELS
from lungseg_jax.inference.prediction_rows import (
    DENSITIES,
    VOLUME_ROW,
    parse_cell,
    rows_by_input,
)
from lungseg_jax.inference.prediction_task import PredictionTask
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import read_json

SCHEMA_VERSION = 1
_OF_VOLUMES_ONLY = ("volume_ml", "right_ml", "left_ml")
_OF_VOLUMES = (*_OF_VOLUMES_ONLY, *DENSITIES)


def prediction_record(
    weights: Mapping[str, Any],
    tasks: Sequence[PredictionTask],
    rows: Sequence[Mapping[str, str]],
    skipped: Mapping[str, UserError],
    *,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the results of tasks, with the weights that made them.

    Args:
      weights: of `describe_weights`.
      tasks: all of them, with those that were finished earlier.
      rows: of the `PredictionTable`.
      skipped: why a task has no results, by its name.
      options: of the command, to be stored as they are; "labels" is a key of LABELS.
    """
    by_input, segments = rows_by_input(rows), LABELS[options["labels"]]
    return {
        "schema_version": SCHEMA_VERSION,
        "lungseg_jax": lungseg_jax.__version__,
        "weights": dict(weights),
        "options": dict(options),
        "inputs": [
            _input(task, by_input[task.name], segments)
            for task in tasks
            if task.name in by_input
        ],
        "skipped": [
            {"input": name, "what": e.what, "rule": e.rule, "remedy": e.remedy}
            for name, e in skipped.items()
        ],
    }


def is_prediction_record(path: Path) -> bool:
    """Return whether a file is a JSON object of `prediction_record`."""
    try:
        content = read_json(path)
    except UserError:
        return False
    known = {"schema_version", "lungseg_jax", "weights", "inputs", "skipped"}
    return isinstance(content, dict) and known <= content.keys()


def describe_weights(segmenter: LungSegmenter) -> dict[str, Any]:
    """Describe the networks; equal digests are equal weights, in a run or a bundle."""
    trained, settings = segmenter.trained, segmenter.settings
    return {
        "members": {name: tree_digest(tree) for name, tree in trained.members.items()},
        "model": dict(trained.model),
        "threshold": trained.threshold,
        "temperature": settings.temperature,
        "postprocessing": settings.postprocessing,
        "review_below": settings.review_below,
    }


def options_record(
    weights: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what masks are made with: the options, the weights and the clean-up.

    Args:
      weights: of `describe_weights`.
      options: those that change a mask.
    """
    networks = dict(weights)
    cleanup = {"postprocessing": networks.pop("postprocessing")}
    return {"weights": json_digest(networks), **cleanup, **options}


def _input(task: PredictionTask, rows: Sequence[Mapping[str, str]], segments) -> dict:
    outputs = {"mask": task.target, **task.maps}
    outputs |= {"overlay": task.overlay, "page": task.page}
    slices = [_slice(row) for row in rows if row["slice"] != VOLUME_ROW]
    volume = None
    if rows[-1]["slice"] == VOLUME_ROW:
        volume = {
            column: parse_cell(column, rows[-1][column]) for column in _OF_VOLUMES
        }
    return {
        "input": task.name,
        "outputs": {name: str(path) for name, path in outputs.items() if path},
        "labels": (
            {str(segment.value): segment.name for segment in segments}
            if volume
            else {"255": "Lung"}
        ),
        "to_review": sum(bool(row["review"]) for row in slices),
        "volume": volume,
        "slices": slices,
    }


def _slice(row: Mapping[str, str]) -> dict[str, Any]:
    left_out = ("input", *_OF_VOLUMES_ONLY)
    return {
        column: parse_cell(column, text)
        for column, text in row.items()
        if column not in left_out
    }
