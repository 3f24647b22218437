"""Scores a run on a labelled folder, at the slices' own size.

    python -m lungseg_jax.evaluate --run=runs/incp_snapshot-phantom --data=DIR
    python -m lungseg_jax.evaluate --run=RUN --data=DIR --members=last --json=scores.json

DIR holds 2d_images/ and 2d_masks/ with equal file names. Every member and the ensemble
of them are scored at the threshold of the run.
"""

from lungseg_jax import stopping

if __name__ == "__main__":
    stopping.listen()

import contextlib
import dataclasses
from collections.abc import Iterable

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from lungseg_jax import cache, checkpoints, cli, metrics, progress, run_record
from lungseg_jax.config import preprocessing, snapshot_steps
from lungseg_jax.data import preflight
from lungseg_jax.data.pairs import Slice, read_slice
from lungseg_jax.data.preprocess import PREPROCESSING, check_domain, soften
from lungseg_jax.ensemble import Ensemble, disagreement, select_members
from lungseg_jax.errors import UserError, counted
from lungseg_jax.models import make_model
from lungseg_jax.paths import user_path
from lungseg_jax.run_folder import RunFolder, write_json
from lungseg_jax.train_state import abstract_variables

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to segment.

    Attributes:
      config: as resolved by the training.
      trained_on: dtype of the images it was trained on.
      steps: of the members, in their order.
      ensemble: of these members.
    """

    config: ConfigDict
    trained_on: str
    steps: list[int]
    ensemble: Ensemble


def load_run(folder: RunFolder, members: str = "all") -> Run:
    """Restores the chosen members of a run, without the optimizer.

    Raises:
      UserError: no run, no such members, or checkpoints of another network.
    """
    config, run = run_record.read_run(folder)
    with contextlib.suppress(UserError):  # a run is of use without its cache, too
        cache.enable_compilation_cache(cache.cache_root(config.cache_dir))
    saved = checkpoints.saved_steps(folder.checkpoints)
    snapshots = [step for step in snapshot_steps(config) if step in saved]
    if members == "all":
        _check_none_is_lost(folder, config, saved)
    steps = select_members(
        members,
        snapshots=snapshots,
        validation_iou={
            row["step"]: row["iou_pooled"]
            for row in folder.read_metrics()
            if row["kind"] == "snapshot" and "iou_pooled" in row
        },
    )
    if len(snapshots) < len(snapshot_steps(config)):
        progress.say(
            f"the run is not finished: {len(snapshots)} of "
            f"{len(snapshot_steps(config))} snapshots"
        )
    model = make_model(**config.model)
    like = abstract_variables(model, channels=PREPROCESSING[config.data.preprocessing])
    return Run(
        config=config,
        trained_on=run["data"]["dtype"],
        steps=steps,
        ensemble=Ensemble(
            model,
            [_restore(folder, step, steps, like) for step in steps],
            preprocessing=preprocessing(config),
            batch_size=config.evaluate.batch_size,
        ),
    )


def _restore(folder: RunFolder, step: int, steps: list[int], like):
    try:
        return checkpoints.restore_variables(folder.checkpoints, step, like)
    except checkpoints.Damaged as e:
        others = ",".join(str(other) for other in steps if other != step)
        choice = f"leave it out with --members={others} in evaluate and predict; or "
        raise UserError(
            e.what,
            rule="a damaged snapshot is never part of an ensemble.",
            remedy=(choice if others else "") + e.remedy,
        ) from e


def _check_none_is_lost(folder: RunFolder, config: ConfigDict, saved) -> None:
    due = run_record.due_snapshots(config, folder, saved)
    lost = [str(step) for step in due if step not in saved]
    if lost:
        left = ",".join(str(step) for step in due if step in saved)
        raise UserError(
            f"{folder.checkpoints} has lost the snapshots {', '.join(lost)}.",
            rule="all snapshots of a run make its ensemble.",
            remedy=f"choose those that are left with --members={left or 'NONE'} in "
            "evaluate and predict, or train again in another folder.",
        )


def score(run: Run, slices: Iterable[Slice], total: int) -> dict:
    """The content of evaluation.json for some labelled slices.

    Returns:
      "threshold", "n", "members" {step: scores}, "ensemble" scores, and "slices" {name:
      {"iou", "disagreement"}} with the ensemble's IoU and the members' disagreement.
    """
    threshold = run.config.evaluate.threshold
    preprocessing_name = run.config.data.preprocessing
    rows, per_slice = [], {}
    queue = []  # the slices whose images the ensemble has taken but not answered

    def images():
        for one in slices:
            check_domain(one.image, run.trained_on, one.name)
            queue.append(one)
            yield one.image

    with progress.bar("scoring", total) as bar:
        for probabilities in run.ensemble.probabilities(images()):
            one = queue.pop(0)
            soft = soften(one.mask, preprocessing=preprocessing_name)
            truth = soft > (threshold if preprocessing_name == "seed" else 0.5)
            masks = probabilities > threshold
            mean_mask = probabilities.mean(axis=0) > threshold
            counts = metrics.count(np.stack([*masks, mean_mask]), truth)
            rows.append(counts)
            iou = float(metrics.iou(counts[-1]))
            per_slice[one.name] = {
                "iou": None if np.isnan(iou) else iou,
                "disagreement": disagreement(masks),
            }
            bar.update()
    by_model = np.stack(rows, axis=1)  # [members + 1, n, 3]
    scores = [metrics.scores(r) for r in by_model]
    return {
        "threshold": threshold,
        "n": len(rows),
        "members": dict(zip(map(str, run.steps), scores[:-1], strict=True)),
        "ensemble": scores[-1],
        "slices": per_slice,
    }


def table(evaluation: dict) -> str:
    """The scores as text, a row for each member and one for the ensemble."""
    rows = [(f"snapshot {step}", s) for step, s in evaluation["members"].items()]
    rows.append((f"ensemble of {len(evaluation['members'])}", evaluation["ensemble"]))
    columns = ("iou_pooled", "iou_mean", "iou_min", "dice_mean")
    lines = [
        f"{'':18}" + "".join(f"{c:>12}" for c in columns) + "   95 % of iou_pooled"
    ]
    for label, s in rows:
        low, high = s["iou_pooled_ci95"]
        lines.append(
            f"{label:18}"
            + "".join(f"{_number(s[c]):>12}" for c in columns)
            + f"   {_number(low)} to {_number(high)}"
        )
    n, threshold = evaluation["n"], evaluation["threshold"]
    lines.append(f"{counted(n, 'slice')} at full size, threshold {threshold:g}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main(words: list[str]) -> None:
    cli.positional(words, [])
    file = user_path(FLAGS.json)
    if FLAGS.json and file.exists() and not FLAGS.overwrite:
        raise UserError(
            f"{file} exists already.", remedy="name another, or pass --overwrite."
        )
    data, root = user_path(FLAGS.data), None
    with contextlib.suppress(UserError):  # without a cache it is checked every time
        root = cache.cache_root()
    checked = preflight.check_folder(data, cache=root)
    run = load_run(RunFolder(user_path(FLAGS.run)), FLAGS.members)
    evaluation = score(run, map(read_slice, checked.pairs), len(checked.pairs))
    evaluation["data"] = str(data.absolute())
    evaluation["fingerprint"] = checked.fingerprint
    if FLAGS.json:
        write_json(file, evaluation)
    print(table(evaluation))


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Folder of the run.", required=True)
    flags.DEFINE_string("data", None, "Folder of slices and masks.", required=True)
    flags.DEFINE_string("members", "all", "all, last, best, or steps as 180,360.")
    flags.DEFINE_string("json", "", "File to write the scores to.")
    flags.DEFINE_bool("overwrite", False, "Replace that file if it exists.")
    cli.run(main, __doc__, when_interrupted="nothing was written.")
