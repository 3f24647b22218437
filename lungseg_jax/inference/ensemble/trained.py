"""What a training leaves for use: networks, and how they are to be used."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lungseg_jax.data.preprocessing import PREPROCESSING
from lungseg_jax.inference.ensemble.predictor import EnsemblePredictor
from lungseg_jax.inference.postprocessing import DEFAULT
from lungseg_jax.models import make_model
from lungseg_jax.training.state import abstract_variables


@dataclasses.dataclass(frozen=True)
class TunedSettings:
    """How the mean probability of some members becomes an answer.

    Attributes:
      temperature: divides the logit; above 1 the members were too sure.
      postprocessing: key of `postprocessing.POSTPROCESSING`.
      review_below: a slice of a lower expected IoU is to be looked at; None where no
        validation split said so.
      choice: of `selection.CHOICES`, for which this was decided; "" for none.
    """

    temperature: float = 1.0
    postprocessing: str = DEFAULT
    review_below: float | None = None
    choice: str = ""


@dataclasses.dataclass(frozen=True)
class TrainedEnsemble:
    """Networks of one model, from a run folder or from a bundle.

    Attributes:
      path: where they come from.
      model: the keywords of `make_model`.
      preprocessing: the keywords of `image_to_network`.
      threshold: lung where the probability is above it.
      batch_size: slices in one compiled call.
      domain: what the values of images are, a key of `data.domain.DOMAINS`.
      members: variables by name, those that were asked for.
      tuning: the content of tuning.json; empty where there is none.
    """

    path: Path
    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    threshold: float
    batch_size: int
    domain: str
    members: Mapping[str, Any]
    tuning: Mapping[str, Any]

    def only(self, names: Sequence[str]) -> "TrainedEnsemble":
        """With some of the members."""
        members = {name: self.members[name] for name in names}
        return dataclasses.replace(self, members=members)

    def ensemble(self, *, flips: bool = False) -> EnsemblePredictor:
        """Of all members that are here, in their order."""
        return EnsemblePredictor(
            make_model(**self.model),
            list(self.members.values()),
            preprocessing=self.preprocessing,
            batch_size=self.batch_size,
            flips=flips,
        )

    def decision(self) -> TunedSettings:
        """What the validation split said for these members.

        For a set of members that is no named choice it is that of all of them.
        """
        choices = self.tuning.get("choices", {})
        names = list(self.members)
        same = [c for c, decided in choices.items() if decided["members"] == names]
        if not choices:
            return TunedSettings()
        choice = same[0] if same else "all"
        return TunedSettings(
            temperature=choices[choice]["temperature"],
            postprocessing=self.tuning["postprocessing"]["chosen"],
            review_below=choices[choice]["review_below"],
            choice=choice if same else "",
        )


def abstract_members(model: Mapping[str, Any], preprocessing: str) -> Any:
    """Shapes and types of the variables of such a network."""
    return abstract_variables(
        make_model(**model), channels=PREPROCESSING[preprocessing]
    )
