"""The weights that a training starts from: the last network of a run, or of a bundle."""

from collections.abc import Mapping
from typing import Any

from lungseg_jax.checkpointing.manifest import tree_digest
from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.inference.ensemble.loading import load_ensemble
from lungseg_jax.inference.ensemble.location import is_bundle
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.runtime.errors import UserError, bullet_list
from lungseg_jax.training.knobs import before_values
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

# Options of a model that may differ: they change no shape.
IGNORED = ("dtype", "bn_momentum", "bn_per_device", "remat", "precision")


def load_initial_weights(
    path: str,
    model: Mapping[str, Any],
    preprocessing: Preprocessing,
    test_digests: Mapping[str, str],
) -> tuple[Any, dict[str, Any]]:
    """Load the last network of a run or of a bundle.

    Args:
      path: the folder, or "pretrained" for the weights of the package.
      model: the keyword arguments of `make_model` in the training.
      preprocessing: of the training.
      test_digests: SHA-256 of each file of the test split, by its path in the data folder.

    Returns:
      The variables, and what run.json records of them: "path", "member", "sha256" and
      "trained_on", the SHA-256 of the images they were trained on; None for a bundle.

    Raises:
      UserError: the folder is neither, holds another network, or was trained on images of
        the test split, also by a run that it started from. A bundle does not say what
        it was trained on.
    """
    trained = load_ensemble(path, members="last")
    _require_same_network(path, model, trained)
    _require_same_channels(path, preprocessing, trained)
    trained_on = None
    if not is_bundle(trained.path):
        run = Run.open(RunFolder(trained.path))
        _require_unseen(path, run, test_digests)
        trained_on = sorted(run.training_images)
    ((member, variables),) = trained.members.items()
    about = {"path": path, "member": member, "sha256": tree_digest(variables)}
    return variables, about | {"trained_on": trained_on}


def _require_same_network(
    path: str, asked: Mapping[str, Any], trained: TrainedEnsemble
) -> None:
    # A bundle of an older version does not have the options added since.
    before = before_values()
    found = {k: trained.model.get(k, before.get(f"model.{k}")) for k in asked}
    different = [k for k in asked if k not in IGNORED and asked[k] != found[k]]
    if different:
        rows = [f"model.{k}: {found[k]} there, {asked[k]} here" for k in different]
        options = " ".join(f"--config.model.{k}={found[k]}" for k in different)
        raise UserError(
            f"init={path} holds another network:\n{bullet_list(rows)}",
            rule="a training starts from weights of its own network.",
            remedy=f"{options}; or train from scratch, with --config.init=.",
        )


def _require_same_channels(
    path: str, asked: Preprocessing, trained: TrainedEnsemble
) -> None:
    found = trained.preprocessing
    if asked.channels != found.channels:
        raise UserError(
            f"init={path} was trained with data.preprocessing={found.kind!r}, and not "
            f"{asked.kind!r}.",
            rule="a training starts from a network with as many input channels: "
            f"{found.channels} there, {asked.channels} here.",
            remedy=f"--config.data.preprocessing={found.kind}; or train from scratch, with "
            "--config.init=.",
        )


def _require_unseen(path: str, run: Run, test_digests: Mapping[str, str]) -> None:
    seen = len(run.trained_on(test_digests))
    if seen:
        raise UserError(
            f"init={path} was trained on {seen} images of the test split.",
            rule="a run is scored on images that its network has not seen.",
            remedy="other weights; or the data.split_seed, data.fold and fractions of the "
            "run that was trained on them.",
        )
