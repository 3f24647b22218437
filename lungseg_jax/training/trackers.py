"""Trackers that follow a training: TensorBoard, Weights & Biases, MLflow.

They are views of metrics.jsonl, which stays the record. A row becomes the scalars
"<kind>/<name>", such as "train/loss". Each library is imported when its tracker is opened,
and NumPy not at all, so that commands refuse unknown trackers at once.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lungseg_jax.runtime.errors import UserError, unknown_name
from lungseg_jax.runtime.extras import require_library
from lungseg_jax.runtime.files import write_text
from lungseg_jax.runtime.object_storage import is_remote
from lungseg_jax.training.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

PROJECT = "lungseg"  # of Weights & Biases, and the experiment of MLflow


class Tracker(Protocol):
    """A follower of a training. Its methods may raise any exception of their library.

    Attributes:
      library: the module that it needs; the extra of its name installs it.
      shows_pictures: whether it has an `add_picture`.
      needs_history: whether it is to be sent the rows of metrics.jsonl first.
    """

    library: ClassVar[str]
    shows_pictures: ClassVar[bool]
    needs_history: bool

    def __init__(
        self, folder: RunFolder, config: Mapping[str, Any], start: int
    ) -> None:
        """Continue after step `start`; what was added of later steps is to be replaced."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics.jsonl."""

    def add_picture(self, step: int, picture: "np.ndarray") -> None:
        """Add a picture `[h w 3]`, uint8 RGB."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Tracker):
    """Event files in RUN/tensorboard."""

    library = "tensorboardX"
    shows_pictures = True

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], start: int):
        from tensorboardX import SummaryWriter

        path = folder.path / "tensorboard"
        self.needs_history = not any(path.glob("events.*"))
        # TensorBoard ignores what older files have of this step and later ones.
        purge_step = None if self.needs_history else start + 1
        # TensorBoard reads files in the order of their names, which have seconds only.
        self._writer = SummaryWriter(
            str(path), purge_step=purge_step, filename_suffix=f".{start:09d}"
        )

    def add(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def add_picture(self, step: int, picture: "np.ndarray") -> None:
        self._writer.add_image("validation", picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Tracker):
    """A run of the project PROJECT; RUN/wandb holds its id and its local files.

    Weights & Biases ignores steps before the newest one that it has, which are those that
    a resumed training repeats.
    """

    library = "wandb"
    shows_pictures = False

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], start: int):
        import wandb

        file = folder.path / "wandb" / "id"
        self.needs_history = is_new = not file.exists()
        self._run = wandb.init(
            project=PROJECT,
            name=folder.path.name,
            dir=str(folder.path),
            id=None if is_new else file.read_text(),
            resume="allow",
            config=dict(config),
        )
        if is_new:
            write_text(file, self._run.id)

    def add(self, row: Mapping[str, Any]) -> None:
        self._run.log(scalars(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


class MLflow(Tracker):
    """A run of the experiment PROJECT; RUN/mlflow/id holds its id.

    MLflow keeps every value that it is given, so those that it has are left out.
    """

    library = "mlflow"
    shows_pictures = False
    needs_history = True

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], start: int):
        from mlflow import MlflowClient

        self._client = MlflowClient()
        file = folder.path / "mlflow" / "id"
        if not file.exists():
            experiment = self._client.get_experiment_by_name(PROJECT)
            experiment_id = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(PROJECT)
            )
            run = self._client.create_run(experiment_id, run_name=folder.path.name)
            write_text(file, run.info.run_id)
            for name, value in config.items():
                self._client.log_param(run.info.run_id, name, value)
        self._id = file.read_text()
        self._newest: dict[str, int] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row).items():
            if name not in self._newest:
                history = self._client.get_metric_history(self._id, name)
                self._newest[name] = max((m.step for m in history), default=-1)
            if row["step"] > self._newest[name]:
                self._client.log_metric(self._id, name, value, step=row["step"])
                self._newest[name] = row["step"]

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by "<kind>/<name>"; undefined scores are left out."""
    return {
        f"{row['kind']}/{name}": value
        for name, value in row.items()
        if name not in ("step", "kind") and value is not None
    }


def require_trackers(names: Sequence[str], folder: str | PathLike) -> None:
    """Check that trackers can follow a run.

    Args:
      names: those of the trackers.
      folder: that of the run; may be empty for its default, which is on this machine.

    Raises:
      UserError: one is unknown or not installed, or the folder is on object storage.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        require_library(TRACKERS[name].library, extra=name, needed_by=f"--track={name}")
    if names and is_remote(folder):
        raise UserError(
            f"--track={','.join(names)} writes files, and {folder} is not on this "
            "machine.",
            remedy="leave --track out: metrics.jsonl has every row; or a local --workdir.",
        )
