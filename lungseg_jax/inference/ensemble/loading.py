"""Loading a trained ensemble from a run folder or a bundle."""

from os import PathLike

from lungseg_jax.inference.ensemble.bundle import load_bundle
from lungseg_jax.inference.ensemble.hub import locate_or_download
from lungseg_jax.inference.ensemble.location import is_bundle
from lungseg_jax.inference.ensemble.members import Every
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble


def load_ensemble(
    path: str | PathLike, *, members: str | Every = "all"
) -> TrainedEnsemble:
    """Load members of a run folder or of a bundle.

    Args:
      path: the folder, "pretrained" for the weights of the package, or hf://ORG/NAME for
        a bundle on the Hugging Face Hub.
      members: see `select_members`.

    Raises:
      UserError: it cannot be downloaded, is neither, has no such members, or is damaged.
    """
    folder = locate_or_download(path)
    if is_bundle(folder):
        return load_bundle(folder, members)
    # Orbax and optax take 0.7 s to import, and a bundle needs neither.
    from lungseg_jax.inference.ensemble.run_members import load_run
    from lungseg_jax.training.run import Run
    from lungseg_jax.training.run_folder import RunFolder

    return load_run(Run.open(RunFolder(folder).require(or_bundle=True)), members)
