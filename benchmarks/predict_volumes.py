"""Time and memory of `lungseg predict`, from one slice to a volume of 800.

    python benchmarks/predict_volumes.py RUN
    python benchmarks/predict_volumes.py RUN --slices=50,200,800 --suffix=.nii.gz

RUN is a finished run or a bundle. The suffix .dcm means a DICOM series, whose mask is a
NIfTI file. Slices are phantoms of 512 x 512, int16, compressed if the format supports it.
Each size runs in a process of its own. Prints its start (imports, weights, compilation),
the time per slice after that, and the growth of its memory: the largest resident size
during the work minus that before it (Linux).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io.images import read_image
from lungseg_jax.data.phantom import dataset

SIZE, DICOM = 512, ".dcm"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a finished run, or a bundle")
    parser.add_argument("--slices", default="1,50,200,800")
    parser.add_argument("--suffix", default=".nii.gz", help="of the input")
    parser.add_argument("--members", default="all")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_scan(path: Path, n: int) -> None:
    """Write a few phantoms repeatedly, as a file or as the folder of a DICOM series."""
    with tempfile.TemporaryDirectory() as folder:
        dataset.write_phantoms(Path(folder), slices=8, seed=0, size=SIZE)
        images = [read_image(p) for p in sorted((Path(folder) / "2d_images").iterdir())]
    stack = [images[k % len(images)].astype(np.int16) for k in range(n)]
    if path.suffix == DICOM:
        path.mkdir()
        for k, slice_ in enumerate(stack):
            write_dicom(path / f"{k:04}{DICOM}", slice_, k)
        return
    image = sitk.GetImageFromArray(np.stack(stack))
    image.SetSpacing((0.8, 0.8, 1.0))
    sitk.WriteImage(image, str(path), useCompression=True)


def write_dicom(file: Path, array: np.ndarray, k: int) -> None:
    """Write slice `k` of a DICOM series."""
    image = sitk.GetImageFromArray(array[None])
    image.SetSpacing((0.8, 0.8, 1.0))
    for tag, value in {
        "0008|0060": "CT",
        "0020|000e": "1.2.3",  # UID of the series
        "0020|0032": f"0\\0\\{k}",  # position
        "0020|0037": "1\\0\\0\\0\\1\\0",  # orientation
    }.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)


def memory_mb(what: str) -> float:
    """Return "VmRSS", the resident size, or "VmHWM", its maximum since `forget_peak`.

    The maximum of getrusage may be that of the parent before the fork.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(what))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def work(args: argparse.Namespace) -> None:
    """Run the worker: the steps of `lungseg predict`, timed separately."""
    start = time.perf_counter()
    from lungseg_jax.inference.plan import plan_outputs
    from lungseg_jax.inference.predict_files import predict_files
    from lungseg_jax.inference.prediction_table import PredictionTable
    from lungseg_jax.inference.segmenter import load
    from lungseg_jax.runtime import progress

    progress.silence()
    segmenter = load(args.run, members=args.members)
    blank = np.full((SIZE, SIZE), -1000, np.int16)
    segmenter(blank)
    segmenter(np.stack([blank, blank]))
    start_seconds, before = time.perf_counter() - start, memory_mb("VmRSS")
    source = Path(args.worker)
    suffix = ".nii.gz" if args.suffix == DICOM else args.suffix
    tasks = plan_outputs(source, source.with_name(f"mask{suffix}"))
    forget_peak()
    start = time.perf_counter()
    with PredictionTable(None) as table:
        predict_files(segmenter, tasks, table)
    figures = {
        "start": start_seconds,
        "seconds": time.perf_counter() - start,
        "growth": memory_mb("VmHWM") - before,
        "before": before,
    }
    print(json.dumps(figures))


def main() -> None:
    args = parse()
    if args.worker:
        work(args)
        return
    print(f"volumes: {SIZE} x {SIZE}, {args.suffix}, members {args.members}")
    for n in map(int, args.slices.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"scan{args.suffix}"
            write_scan(source, n)
            command = [sys.executable, __file__, args.run, f"--worker={source}"]
            command += [f"--suffix={args.suffix}", f"--members={args.members}"]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            )
            figures = json.loads(done.stdout.splitlines()[-1])
        print(
            f"  {n:4} slices: start {figures['start']:5.1f} s, "
            f"then {figures['seconds']:6.2f} s, {1e3 * figures['seconds'] / n:5.0f} ms "
            f"per slice; memory {figures['before']:4.0f} MB at the start, "
            f"{figures['growth']:+4.0f} MB"
        )


if __name__ == "__main__":
    main()
