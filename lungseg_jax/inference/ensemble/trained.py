"""A trained ensemble: its weights and inference settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_jax.data.preprocessing import Preprocessing
from lungseg_jax.inference.ensemble.predictor import EnsemblePredictor
from lungseg_jax.inference.ensemble.views import AS_IT_IS, VIEWS
from lungseg_jax.inference.postprocessing import DEFAULT
from lungseg_jax.models import make_model
from lungseg_jax.models.variables import abstract_variables
from lungseg_jax.runtime.compilation import platform_of


@dataclasses.dataclass(frozen=True)
class TunedSettings:
    """How the mean probability of some members becomes a segmentation.

    Attributes:
      temperature: divides the logit; above 1, the members were overconfident.
      postprocessing: a key of `outputs.POSTPROCESSING`.
      review_below: a slice with a lower expected IoU should be reviewed; None without a
        validation split.
      choice: the named choice of members for which this was tuned, or "".
    """

    temperature: float = 1.0
    postprocessing: str = DEFAULT
    review_below: float | None = None
    choice: str = ""


@dataclasses.dataclass(frozen=True)
class TrainedEnsemble:
    """Networks of one model, from a run folder or from a bundle.

    Attributes:
      path: the folder that they come from.
      model: the keyword arguments of `make_model`.
      preprocessing: of the slices.
      threshold: a pixel is lung where the probability is above it.
      batch_size: slices per compiled call.
      domain: the kind of intensities, a key of `data.intensity.DOMAINS`.
      members: the variables of the selected members, by name.
      views: the view of each member, by name; see `assign_views`. Members without an
        entry see slices as they are.
      tuning: the content of tuning.json; empty if there is none.
    """

    path: Path
    model: Mapping[str, Any]
    preprocessing: Preprocessing
    threshold: float
    batch_size: int
    domain: str
    members: Mapping[str, Any] = dataclasses.field(repr=False)
    views: Mapping[str, int]
    tuning: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def window_hu(self) -> tuple[float, float]:
        """The values that the networks see as black and as white."""
        return self.preprocessing.window_hu

    def subset(self, names: Sequence[str]) -> "TrainedEnsemble":
        """Return the ensemble of the members with these names."""
        members = {name: self.members[name] for name in names}
        return dataclasses.replace(self, members=members)

    def view(self, name: str) -> int:
        """Return the mirror image that a member sees, one of `views.VIEWS`."""
        return self.views.get(name, AS_IT_IS)

    def true_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return the boolean mask `[h w]` that predictions are scored against."""
        return self.preprocessing.true_mask(mask, threshold=self.threshold)

    def in_hu(self, image: np.ndarray) -> np.ndarray | None:
        """Return a slice that it may be shown, or None if not in Hounsfield units."""
        return image if self.domain == "HU" else None

    def predictor(self, *, flips: bool = False) -> EnsemblePredictor:
        """Return a predictor of all members, in their order.

        Args:
          flips: whether each member is averaged over all views.
        """
        return EnsemblePredictor(
            make_network(self.model, platform_of()),
            list(self.members.values()),
            preprocessing=self.preprocessing,
            batch_size=self.batch_size,
            views=[VIEWS if flips else (self.view(name),) for name in self.members],
        )

    def settings(self) -> TunedSettings:
        """Return the settings tuned on the validation split for these members.

        A set of members that is not a named choice gets the settings of all members.
        """
        choices, names = self.tuning.get("choices", {}), list(self.members)
        if not choices:
            return TunedSettings()
        matches = [name for name in choices if choices[name]["members"] == names]
        choice = matches[0] if matches else "all"
        return TunedSettings(
            temperature=choices[choice]["temperature"],
            postprocessing=self.tuning["postprocessing"]["chosen"],
            review_below=choices[choice]["review_below"],
            choice=choice if matches else "",
        )


def make_network(model: Mapping[str, Any], platform: str) -> Any:
    """Create the network of predictions on a platform.

    It is the one that was trained, but on a CPU always in float32: bfloat16 has fewer bits
    and takes a CPU twice the time.

    Args:
      model: the keyword arguments of `make_model`.
      platform: as JAX names it, such as "cpu".
    """
    if platform == "cpu":
        model = {**model, "dtype": "float32"}
    return make_model(**model)


def abstract_members(model: Mapping[str, Any], channels: int) -> Any:
    """Return a member's variables as shapes and dtypes."""
    return abstract_variables(make_model(**model), channels=channels)
