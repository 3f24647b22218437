"""The time that the host spends on a slice of a volume, beside the network.

    python benchmarks/host_time.py pretrained
    python benchmarks/host_time.py RUN --slices=200 --trees=../main,. --rounds=5

RUN is a finished run or a bundle. A volume of 512 x 512 pixels, a phantom patient in
.nii.gz, is predicted by each checkout of this repository in turn, in a process of its own.
What is printed is the CPU time of that process on all cores, without its start, less that
of the networks on as many batches. Other programs on the machine hardly change it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SIZE, SEED = 512, 7000
WARM_UP = 5  # slices


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a finished run, or a bundle")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--trees", default=".", help="checkouts, such as ../main,.")
    parser.add_argument("--members", default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_scan(file: Path, slices: int) -> None:
    """Write a phantom patient, from neck to abdomen."""
    from lungseg_jax.data.phantom.volume import make_volume

    array, _, spacing_mm = make_volume(SEED, slices=slices, size=SIZE)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(image, str(file), useCompression=True)


def work(args: argparse.Namespace) -> None:
    """Run the worker: print milliseconds for a slice, of the host and of the networks."""
    from lungseg_jax.inference.ensemble import views
    from lungseg_jax.inference.ensemble.predictor import make_predict
    from lungseg_jax.inference.plan import plan_outputs
    from lungseg_jax.inference.predict_files import predict_files
    from lungseg_jax.inference.prediction_table import PredictionTable
    from lungseg_jax.inference.segmenter import load
    from lungseg_jax.models import make_model
    from lungseg_jax.runtime import progress

    progress.silence()
    segmenter = load(args.run, members=args.members)
    folder, trained = Path(args.worker), segmenter.trained
    network = make_predict(make_model(**trained.model))
    as_it_is = np.int32([views.AS_IT_IS])
    side = trained.preprocessing.image_size
    batch = np.zeros((trained.batch_size, side, side, 1), np.float32)

    def predict(file: Path) -> None:
        tasks = plan_outputs(file, folder / "mask.nii.gz", overwrite=True)
        with PredictionTable(folder / "table.csv") as table:
            predict_files(segmenter, tasks, table)

    def run_networks(slices: int) -> None:
        for _ in range(-(-slices // len(batch))):
            for variables in trained.members.values():
                np.asarray(network(variables, batch, as_it_is))

    predict(folder / "warm_up.nii.gz")
    run_networks(1)
    both = cpu_ms(lambda: predict(folder / "scan.nii.gz")) / args.slices
    networks = cpu_ms(lambda: run_networks(args.slices)) / args.slices
    print(both - networks, networks)


def cpu_ms(call) -> float:
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    args = parse()
    if args.worker:
        work(args)
        return
    figures: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder) / "warm_up.nii.gz", WARM_UP)
        write_scan(Path(folder) / "scan.nii.gz", args.slices)
        for tree in args.rounds * args.trees.split(","):
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], f"--worker={folder}"],
                env=os.environ | {"PYTHONPATH": str(Path(tree).resolve())},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            row = [float(ms) for ms in done.stdout.split()[-2:]]
            figures.setdefault(tree, []).append(row)
            print(f"  {tree}: host {row[0]:.1f} ms a slice, networks {row[1]:.1f}")
    for tree, rows in figures.items():
        host, networks = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(f"{tree}: host {host:.1f} ms a slice, networks {networks:.1f} (medians)")


if __name__ == "__main__":
    main()
