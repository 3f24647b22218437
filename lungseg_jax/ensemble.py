"""Snapshots used together: members stacked, one compiled call, the mean of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lungseg_jax.data.preprocess import image_to_network, to_slice
from lungseg_jax.errors import UserError
from lungseg_jax.steps import make_ensemble_predict


class Ensemble:
    """Members of one model that segment slices of any size.

    Args:
      model: of every member.
      members: the variables of each, equal in structure and shapes.
      preprocessing: the keywords of `image_to_network`.
      batch_size: slices in one compiled call; the last batch is filled up.
    """

    def __init__(
        self,
        model: Any,
        members: Sequence[Any],
        *,
        preprocessing: Mapping[str, Any],
        batch_size: int = 4,
    ):
        self._members = stack(members)
        self._predict = make_ensemble_predict(
            model, vectorize=jax.default_backend() != "cpu"
        )
        self._preprocessing = preprocessing
        self._batch_size = batch_size

    def probabilities(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """For each image `[h w]`, the members' probabilities of lung, `[m h w]`.

        Memory holds one batch at a time, whatever the number of images.
        """
        images = iter(images)
        while batch := list(islice(images, self._batch_size)):
            inputs = [image_to_network(i, **self._preprocessing) for i in batch]
            inputs += [inputs[-1]] * (self._batch_size - len(batch))
            outputs = np.asarray(self._predict(self._members, np.stack(inputs)))
            for image, squares in zip(batch, outputs.swapaxes(0, 1), strict=False):
                yield np.stack([to_slice(square, image.shape) for square in squares])


def stack(members: Sequence[Any]) -> Any:
    """Trees of equal structure as one, with a leading axis m on each array."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def disagreement(masks: np.ndarray) -> float:
    """Share of the pixels that any member calls lung and not all do, of masks `[m h w]`.

    One minus the intersection over union of all members; 0 where none sees lung.
    """
    union = masks.any(axis=0).sum()
    return float(1 - masks.all(axis=0).sum() / union) if union else 0.0


def select_members(
    choice: str, *, snapshots: Sequence[int], validation_iou: Mapping[int, float]
) -> list[int]:
    """The steps of the members that `choice` names.

    Args:
      choice: "all", "last", "best" (on the validation split) or steps as "300,600".
      snapshots: the steps that were saved at cycle ends.
      validation_iou: pooled IoU of snapshots on the validation split.

    Raises:
      UserError: an unknown choice or step, or nothing to choose from.
    """
    if not snapshots:
        raise UserError(
            "the run has no snapshot yet.",
            rule="a snapshot is saved at the end of each cycle.",
            remedy="run the training command again; it resumes.",
        )
    if choice == "all":
        return list(snapshots)
    if choice == "last":
        return [snapshots[-1]]
    if choice == "best":
        scored = {s: validation_iou[s] for s in snapshots if s in validation_iou}
        if not scored:
            raise UserError(
                "members=best needs scores on a validation split; this run has none.",
                remedy="choose all, last or steps; or train with "
                "--config.data.validation_fraction=0.1.",
            )
        return [max(scored, key=scored.get)]
    steps = [s.strip() for s in choice.split(",")]
    unknown = [s for s in steps if not s.isdecimal() or int(s) not in snapshots]
    if unknown:
        raise UserError(
            f"members={choice}: {', '.join(unknown)} is no snapshot of this run.",
            rule=f"all, last, best, or some of {', '.join(map(str, snapshots))}.",
        )
    return sorted({int(s) for s in steps})
