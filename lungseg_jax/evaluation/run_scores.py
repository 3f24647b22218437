"""An ensemble on the splits of a run: tuned on the validation split, scored on the test.

The processes of a job share the slices.
"""

from typing import Any

from lungseg_jax.data.dataset import Dataset
from lungseg_jax.evaluation.evaluator import evaluate, slice_metadata
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.ensemble.trained import TrainedEnsemble
from lungseg_jax.runtime.sharing import own_share
from lungseg_jax.training.augmented import stressed_slices
from lungseg_jax.training.run import Run


def tune_on_validation(
    trained: TrainedEnsemble, run: Run, dataset: Dataset
) -> dict[str, Any]:
    """Return the content of tuning.json, see `tune`.

    Args:
      trained: the ensemble.
      run: the run that the split is of.
      dataset: its data.

    Raises:
      UserError: the devices have too little memory.
    """
    names = run.record["split"]["validation"]
    return tune(
        trained,
        lambda: dataset.slices(own_share(names)),
        len(names),
        stressed=stressed_slices(run.config, dataset, names),
    )


def evaluate_on_test(
    trained: TrainedEnsemble, run: Run, dataset: Dataset
) -> dict[str, Any]:
    """Return the content of evaluation.json, see `evaluate`, with "split" and "split_seed".

    Args:
      trained: the ensemble.
      run: the run that the split is of.
      dataset: its data.
    """
    names = run.record["split"]["test"]
    metadata = slice_metadata(dataset.checked.metadata, names)
    evaluation = evaluate(
        trained, dataset.slices(own_share(names)), len(names), **metadata
    )
    return evaluation | {"split": "test", "split_seed": run.config.data.split_seed}
