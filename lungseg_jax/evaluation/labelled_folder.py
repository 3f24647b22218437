"""Scores of a trained ensemble on a folder of labelled slices."""

from pathlib import Path
from typing import Any

from lungseg_jax.data.intensity import require_intensity
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.evaluation.evaluator import evaluate, slice_metadata
from lungseg_jax.inference.ensemble.location import is_bundle
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.runtime.object_storage import is_remote
from lungseg_jax.training.run import SCHEMA_VERSION, Run
from lungseg_jax.training.run_folder import RunFolder


def evaluate_folder(
    trained: TrainedEnsemble, checked: CheckedFolder, data: Path, *, flips: bool = False
) -> dict[str, Any]:
    """Score an ensemble on all slices of a folder, at their own size.

    Args:
      trained: the members; see `evaluate`.
      checked: the folder.
      data: its name, which may be an address on object storage.
      flips: average over mirror images.

    Returns:
      The scores as `evaluate` returns them, with "schema_version", "run", "data",
      "fingerprint" of the data and, for a run, the number of slices that it was
      "trained_on".

    Raises:
      UserError: the slices have other units than those of the training.
    """
    data = data if is_remote(data) else data.absolute()
    require_intensity(checked.values, trained.domain, str(data))
    names = [pair.name for pair in checked.pairs]
    evaluation = {"schema_version": SCHEMA_VERSION} | evaluate(
        trained,
        map(checked.read, checked.pairs),
        len(checked.pairs),
        flips=flips,
        **slice_metadata(checked.metadata, names),
    )
    evaluation["run"], evaluation["data"] = str(trained.path), str(data)
    evaluation["fingerprint"] = checked.fingerprint
    if not is_bundle(trained.path):  # a bundle does not list its training slices
        run = Run.open(RunFolder(trained.path))
        evaluation["trained_on"] = run.count_training_images(checked.digests)
    return evaluation
