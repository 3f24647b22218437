"""The page of a labelled folder: the report of its slices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.reporting.report import write_report


def write_folder_page(
    folder: Path,
    trained: TrainedEnsemble,
    evaluation: Mapping[str, Any],
    checked: CheckedFolder,
) -> Path:
    """Write the page of the scores on a labelled folder.

    Args:
      folder: the destination.
      trained: the members of the evaluation, or more.
      evaluation: the result of `evaluate_folder`.
      checked: the labelled folder.

    Returns:
      The page.

    Raises:
      OSError, UserError: a file cannot be written or removed.
    """
    pairs = {pair.name: pair for pair in checked.pairs}
    scored = trained.subset(list(evaluation["members"]))
    write_report(
        folder,
        evaluation,
        LungSegmenter(scored, flips=evaluation["flips"]),
        title=" on ".join(Path(evaluation[key]).name for key in ("run", "data")),
        read=lambda names: [checked.read(pairs[name]) for name in names],
    )
    return folder / "index.html"
