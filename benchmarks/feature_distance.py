"""Whether images unlike the training have bad masks: the distance of features.

    python benchmarks/feature_distance.py RUN --data=DIR

DIR holds 2d_images/ and 2d_masks/, on which the run was trained. The features of a slice
are the means of the deepest channels of each member. Their distance is the one of
Mahalanobis to those of the training slices, augmented as in training, with a covariance
that is shrunk towards its diagonal (Lee et al., arXiv:1807.03888; on CT: González et al.,
MICCAI 2021). Prints how well it tells slices with an IoU below 0.95 from the others, as the
AUROC over all changes of `benchmarks/stress/` of the test split; that of the expected IoU;
and that of both, by the logistic regression that fits the augmented validation slices best.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from robustness import UNCHANGED, change, held_out, predict, thin_out
from scipy.optimize import minimize
from stress.families import FAMILIES

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.pairs import find_pairs, read_slice
from lungseg_jax.inference.ensemble.run_members import load_run
from lungseg_jax.inference.segmenter import load
from lungseg_jax.metrics import overlap
from lungseg_jax.metrics.uncertainty import auroc
from lungseg_jax.models import make_model
from lungseg_jax.runtime import cache
from lungseg_jax.training.augmented import augmented_slices
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

BATCH = 8
LOW_IOU = 0.95
SHRINKAGE = (0.1, 0.5, 0.9)


def make_features(trained):
    """Return `features(images) -> [n m c]`, of n images `[h w]` and m members."""
    model, name = make_model(**trained.model), f"down_{trained.model['levels']}"

    @jax.jit
    def of_batch(variables, images):
        images = trained.preprocessing.to_unit(images)
        _, captured = model.apply(
            variables,
            images,
            train=False,
            capture_intermediates=lambda module, _: module.name == name,
        )
        deepest = captured["intermediates"][name]["__call__"]
        parts = [x.mean((1, 2)) for x in jax.tree.leaves(deepest)]
        return jnp.concatenate(parts, axis=-1)

    def features(images):
        images = [trained.preprocessing.image(image) for image in images]
        images = np.float32(np.stack(images))
        rows = np.resize(np.arange(len(images)), (-(-len(images) // BATCH), BATCH))
        of_members = [
            np.concatenate([of_batch(v, images[row]) for row in rows])
            for v in trained.members.values()
        ]
        return np.stack(of_members, axis=1)[: len(images)]

    return features


def mahalanobis(training: np.ndarray, shrinkage: float):
    """Return `distance(features [n m c]) -> [n]`, the mean over members."""
    means, inverses = training.mean(0), []
    for member in training.swapaxes(0, 1):
        covariance = np.cov(member.T)
        diagonal = np.diag(np.diag(covariance) + 1e-9 * np.trace(covariance))
        shrunk = (1 - shrinkage) * covariance + shrinkage * diagonal
        inverses.append(np.linalg.inv(shrunk))

    def distance(features):
        d = features - means
        return np.sqrt(np.einsum("nmc,mcd,nmd->nm", d, np.stack(inverses), d)).mean(1)

    return distance


def logistic_score(x: np.ndarray, positive: np.ndarray):
    """Return the linear score of a logistic regression on standardized columns."""
    mean, deviation = x.mean(0), x.std(0)

    def design(x):
        return np.column_stack([np.ones(len(x)), (x - mean) / deviation])

    def loss(weights):
        z = design(x) @ weights
        return (np.logaddexp(0, z) - positive * z).sum() + 0.3 * (
            weights[1:] ** 2
        ).sum()

    weights = minimize(loss, np.zeros(x.shape[1] + 1)).x
    return lambda x: design(x) @ weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=12, help="at most, evenly spaced")
    args = parser.parse_args()
    run = Run.open(RunFolder(args.run))
    trained, segmenter = load_run(run), load(args.run)
    dataset = load_dataset(args.data, cache=cache.cache_root())
    features = make_features(trained)

    def augmented(part, times):
        names = run.record["split"][part]
        steps = times * len(names) // run.config.train.batch_size
        images, masks = augmented_slices(run.config, dataset, names, steps=steps)
        low, high = trained.window_hu
        return low + images * (high - low), masks > 0.5

    def judge(images, masks):
        """Return features, expected IoU, and whether the IoU is low, of each slice."""
        predicted, _, expected = predict(segmenter, images)
        counts = map(overlap.count_pixels, predicted, masks)
        iou = np.array([overlap.iou(row) for row in counts])
        return features(images), np.array(expected), iou < LOW_IOU

    training = features(augmented("train", 1)[0])
    validation = judge(*augmented("validation", 4))
    pairs, _ = held_out(find_pairs(args.data), {"run": args.run}, "test")
    slices = [read_slice(pair) for pair in thin_out(pairs, args.slices)]
    judged = []
    for name in (UNCHANGED, *(n for n, f in FAMILIES.items() if f.has_lung)):
        for level in FAMILIES[name].levels if name in FAMILIES else (UNCHANGED,):
            series = change(name, level, slices, seed=0)
            judged.append(judge(series.images, series.masks))
        print(name, flush=True)
    test = [np.concatenate(parts) for parts in zip(*judged, strict=True)]

    expected, low = test[1:]
    print(f"{len(low)} slices, {low.sum()} of them with an IoU below {LOW_IOU}")
    print(f"AUROC of the expected IoU {auroc(-expected, low):.3f}")
    for shrinkage in SHRINKAGE:
        distance = mahalanobis(training, shrinkage)
        columns = [
            np.log(np.column_stack([1.001 - expected, distance(features)]))
            for features, expected, _ in (validation, test)
        ]
        both = logistic_score(columns[0], validation[2])(columns[1])
        print(
            f"shrinkage {shrinkage}: distance {auroc(distance(test[0]), low):.3f}, "
            f"both {auroc(both, low):.3f}"
        )


if __name__ == "__main__":
    main()
