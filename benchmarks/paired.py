"""Values of an option side by side: the same weights at the start, and the same batches.

    python benchmarks/paired.py DATA optimizer.muon_hidden_only=False,True
    python benchmarks/paired.py DATA model.norm=batch,group --size=192 --steps=600 --seeds=5

DATA holds 2d_images/ and 2d_masks/. A seed determines the weights and the order of the
slices; the augmentation is the same for all seeds, so that a value is compiled once. Every
training is one cycle. It is scored on the slices that are held out, at the network's size
with threshold 0.5.
"""

import argparse
import ast
import time
from pathlib import Path

import jax
import numpy as np

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.packed_masks import unpack_masks
from lungseg_jax.data.sampling import batch_indices, whole_batches
from lungseg_jax.data.splits import split_names
from lungseg_jax.metrics.overlap import summarize
from lungseg_jax.models import make_model
from lungseg_jax.runtime import cache, compilation, device_mesh
from lungseg_jax.training.batch_stats import make_precise_batch_stats
from lungseg_jax.training.config import check_config, default_config, preprocessing_of
from lungseg_jax.training.losses import LOSSES
from lungseg_jax.training.programs import init_of, train_steps_of
from lungseg_jax.training.run_data import network_slices
from lungseg_jax.training.validation import make_eval_step

BATCH = 8  # of the evaluation
NAMES = ("iou_pooled", "iou_min", "loss")


def config_of(args, setting: str):
    """Return the configuration of all trainings with one setting, KEY=VALUE."""
    c = default_config()
    c.data.image_size, c.train.batch_size = args.size, args.batch
    c.schedule.cycles, c.train.total_steps = 1, args.steps
    for text in (*args.set, setting):
        key, _, value = text.partition("=")
        c.update_from_flattened_dict({key: parse(value)})
    check_config(c)
    return c


def parse(text: str):
    """Return the value of a setting; what is not a Python literal is a word."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def make_train(c, arrays, held_out):
    """Return `train(seed) -> scores`, which compiles once."""
    model, mesh = make_model(**c.model), device_mesh.make_mesh(jax.devices()[:1])
    images, masks = arrays["image"], arrays["mask"]
    normalize = preprocessing_of(c).to_unit
    first, steps = init_of(c, mesh).eval_shape(), train_steps_of(c, mesh)
    precise = make_precise_batch_stats(model, normalize=normalize)
    evaluate = make_eval_step(
        model, loss=LOSSES[c.train.loss], threshold=c.evaluate.threshold
    )

    def train(seed: int) -> dict[str, float]:
        seeded = c.copy_and_resolve_references()
        seeded.seed = seed
        # Part of the program, hence the same objects for all seeds.
        functions = {"apply_fn": first.apply_fn, "tx": first.tx}
        state, losses = init_of(seeded, mesh)().replace(**functions), []
        for step in range(c.train.total_steps):
            batch = batch_indices(
                step, n=len(images), batch_size=c.train.batch_size, seed=seed
            )
            batch = batch[None].astype(np.int32)
            state, metrics = steps(state, images, masks, batch, np.int32(1))
            losses.append(metrics["loss"][0])
        if c.train.population_stats and state.batch_stats is not None:
            batches = whole_batches(len(images), c.train.batch_size, seed=seed)
            stats = precise(state.variables, images, batches)
            state = state.replace(batch_stats=stats)
        rows = []
        for start in range(0, len(held_out["mask"]), BATCH):
            part = slice(start, start + BATCH)
            truth = unpack_masks(held_out["mask"][part])
            inputs = normalize(held_out["image"][part]), truth
            rows += np.asarray(evaluate(state.variables, *inputs)[1]).tolist()
        scores = summarize(rows, resamples=0)
        last = float(np.mean(jax.device_get(losses[-50:])))
        return {name: scores[name] for name in NAMES[:-1]} | {"loss": last}

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("setting", help="a knob and its values, KEY=A,B")
    parser.add_argument("--set", nargs="*", default=[], help="knobs of all trainings")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held_out", type=float, default=0.3)
    args = parser.parse_args()
    compilation.enable_compilation_cache(cache.cache_root())
    dataset = load_dataset(args.data, cache=cache.cache_root())
    split = split_names(
        dataset.names, validation_fraction=0.0, test_fraction=args.held_out, seed=3
    )
    key, _, values = args.setting.partition("=")
    baseline = None
    for value in values.split(","):
        c = config_of(args, f"{key}={value}")
        training, held_out = (
            network_slices(c, dataset, split[part]).stack()
            for part in ("train", "test")
        )
        train, rows = make_train(c, jax.device_put(training), held_out), []
        for seed in range(args.seeds):
            start = time.perf_counter()
            rows.append(train(seed))
            shown = ", ".join(f"{name} {x:.4f}" for name, x in rows[-1].items())
            seconds = time.perf_counter() - start
            print(f"{key}={value} seed {seed}: {shown} ({seconds:.0f} s)", flush=True)
        table = np.array([[row[name] for name in NAMES] for row in rows])
        baseline = table if baseline is None else baseline
        for name, column in zip(NAMES, (table - baseline).T, strict=True):
            each = ", ".join(f"{difference:+.4f}" for difference in column)
            print(f"  {name} difference {column.mean():+.4f} ({each})", flush=True)


if __name__ == "__main__":
    main()
