"""Scores of a trained ensemble on a folder of labelled slices."""

from pathlib import Path
from typing import Any

from lungseg_jax.data.intensity import require_intensity
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.evaluation.evaluator import evaluate, slice_metadata
from lungseg_jax.evaluation.label_audit import LabelAudit
from lungseg_jax.inference.ensemble.location import PRETRAINED, is_bundle, locate
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.inference.segmenter import LungSegmenter
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, pluralize
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
    data = _absolute(data)
    require_intensity(checked.values, trained.domain, str(data))
    names = [pair.name for pair in checked.pairs]
    evaluation = {"schema_version": SCHEMA_VERSION} | evaluate(
        trained,
        map(checked.read, checked.pairs),
        len(checked.pairs),
        flips=flips,
        **slice_metadata(checked.metadata, names),
    )
    evaluation["run"], evaluation["data"] = str(_absolute(trained.path)), str(data)
    evaluation["fingerprint"] = checked.fingerprint
    if not is_bundle(trained.path):  # a bundle does not list its training slices
        run = Run.open(RunFolder(trained.path))
        evaluation["trained_on"] = len(run.trained_on(checked.digests))
    return evaluation


def audit_folder(
    segmenter: LungSegmenter, checked: CheckedFolder, data: Path
) -> LabelAudit:
    """Compare the labels of a folder with masks; see `LabelAudit`.

    Slices that the run of the segmenter was trained on are left out; a bundle does not
    list them.

    Args:
      segmenter: makes the masks.
      checked: the folder.
      data: its name, which may be an address on object storage.

    Raises:
      UserError: the slices have other units than those of the training, or the run was
        trained on all of them.
    """
    trained, pairs = segmenter.trained, checked.pairs
    require_intensity(checked.values, trained.domain, str(data))
    if not is_bundle(trained.path):
        run = Run.open(RunFolder(trained.path))
        learned = run.trained_on(checked.digests)
        pairs = [pair for pair in pairs if pair.name not in learned]
        if not pairs:
            raise UserError(
                f"{trained.path} was trained on all slices of {data}.",
                rule="a label is compared with a network that has not learned it.",
                remedy="leave out --run, or run lungseg crossval.",
            )
        if learned:
            trained_on = pluralize(len(learned), "slice")
            progress.say(f"{trained_on} left out: the run was trained on them")
    elif trained.path != locate(PRETRAINED):
        progress.say(
            "the bundle does not list its training slices; wrong labels of these look right"
        )
    audit = LabelAudit(checked.metadata.spacings)
    audit.add(segmenter, map(checked.read, pairs), len(pairs))
    return audit


def _absolute(path: Path) -> Path:
    return path if is_remote(path) else path.absolute()
