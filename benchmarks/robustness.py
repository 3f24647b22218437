"""Where masks break: runs and a ten-line threshold on slices that were changed.

    python benchmarks/robustness.py RUN --data=DIR
    python benchmarks/robustness.py old=RUN new=BUNDLE --data=DIR --out=robustness
    python benchmarks/robustness.py RUN --data=DIR --families=noise,blur --slices=24

DIR holds 2d_images/ and 2d_masks/, in Hounsfield units. `benchmarks/stress/families.py`
lists the changes, with their levels and moderate ranges. Scored are slices that no run was
trained on: its own test split where it was trained on DIR, otherwise all of DIR. Prints a
table of all levels and a summary: pooled IoU at the slices' own size, 95 % bootstrap
intervals over slices, the share flagged for review, and where a run is below the threshold
(surely, by the interval of the paired difference, or perhaps). Slices of a level are
predicted as one series. A third table says how well each run knows which of its masks are
bad, over all changes with lung.

--out writes robustness.json, robustness.md and robustness.png; --pictures also
pictures.png, one slice of each level with the true outline and that of the first run.
"""

import argparse
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from contestants.threshold import threshold_lungs
from stress import anatomy, pictures, scores, tables
from stress.families import FAMILIES, Family, Level, apply
from stress.scores import Cell
from stress.tables import THRESHOLD

from lungseg_jax.data.intensity import require_intensity, values_of
from lungseg_jax.data.pairs import Pair, Slice, find_pairs, read_slice
from lungseg_jax.inference.ensemble.location import is_bundle
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.runtime.errors import UserError, unknown_name
from lungseg_jax.runtime.files import write_json
from lungseg_jax.training.run import Run
from lungseg_jax.training.run_folder import RunFolder

UNCHANGED, REAL = "unchanged", "real slices"


@dataclasses.dataclass(frozen=True)
class Series:
    """Changed slices of a family at a level.

    Attributes:
      images: int16 `[h w]` each, in Hounsfield units.
      masks: bool `[h w]` each.
      changed: lung that the change touched, bool `[h w]` each, where that is of interest.
      body: pixels of the patient in each slice, where they are of interest.
    """

    images: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    changed: Sequence[np.ndarray] | None = None
    body: Sequence[int] | None = None


def held_out(
    pairs: Sequence[Pair], runs: Mapping[str, Path], split: str
) -> tuple[list[Pair], list[str]]:
    """Return the pairs that may be scored, and the names of runs trained on this data.

    Raises:
      UserError: the runs have no slice of this split in common.
    """
    names = {pair.name for pair in pairs}
    trained_here = []
    for label, path in runs.items():
        if split == "all" or is_bundle(path):  # a bundle does not list its slices
            continue
        run = Run.open(RunFolder(path))
        if run.trained_on(_digests(pairs)):
            names &= set(run.record["split"][split])
            trained_here.append(label)
    if not names:
        raise UserError(
            f"the runs have no slice of the {split} split in common.",
            rule="all runs are scored on the same slices.",
            remedy="score them one by one, or train them with the same data.split_seed.",
        )
    return [pair for pair in pairs if pair.name in names], trained_here


def thin_out(items: Sequence, most: int) -> list:
    """Return at most `most` items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    at = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[i] for i in at]


def change(name: str, level: Level, slices: Sequence[Slice], seed: int) -> Series:
    """Apply a family at a level to all slices."""
    if name == UNCHANGED:
        masks = [s.mask > 0 for s in slices]
        return Series([np.rint(s.image).astype(np.int16) for s in slices], masks)
    images, masks, changed, body = [], [], [], []
    for s in slices:
        truth = s.mask > 0
        image, mask = apply(name, level, s.image, truth, slice_name=s.name, seed=seed)
        images.append(image)
        masks.append(mask)
        if FAMILIES[name].is_local:
            changed.append(scores.changed_lung(s.image, image, mask))
        if not FAMILIES[name].has_lung:
            body.append(_body_pixels(s))
    return Series(images, masks, changed or None, body or None)


def series_without_lung(folder: Path) -> Series:
    """Read the slices of a folder whose masks are empty.

    Raises:
      UserError: there is none.
    """
    slices = [s for s in map(read_slice, find_pairs(folder)) if not s.mask.any()]
    if not slices:
        raise UserError(f"{folder} has no slice with an empty mask.")
    return Series(
        [np.rint(s.image).astype(np.int16) for s in slices],
        [s.mask > 0 for s in slices],
        body=[_body_pixels(s) for s in slices],
    )


def predict(
    segmenter: LungSegmenter, images: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[bool] | None, list[float]]:
    """Segment slices as one series: masks, whether to review each, its expected IoU.

    Raises:
      UserError: the segmenter refuses the values of the images.
    """
    if len({image.shape for image in images}) == 1:
        segmentation = segmenter(np.stack(images))
        review = segmentation.review
        flags = None if review is None else list(review)
        return list(segmentation.mask), flags, list(segmentation.expected_iou)
    require_intensity(values_of(images), segmenter.trained.domain, "the series")
    segmentations = list(segmenter.stream(images))
    review = [segmentation.review for segmentation in segmentations]
    masks = [segmentation.mask for segmentation in segmentations]
    expected = [segmentation.expected_iou for segmentation in segmentations]
    return masks, None if None in review else review, expected


def score_series(
    series: Series, segmenters: Mapping[str, LungSegmenter]
) -> tuple[dict[str, Cell], dict[str, list[np.ndarray]]]:
    """Score the threshold and each segmenter; also return the masks of each."""
    masks = {THRESHOLD: [threshold_lungs(image) for image in series.images]}
    flags, expected, refused = {THRESHOLD: None}, {THRESHOLD: None}, {}
    for name, segmenter in segmenters.items():
        try:
            masks[name], flags[name], expected[name] = predict(segmenter, series.images)
        except UserError as e:
            refused[name] = Cell(np.zeros((0, 3), np.int64), refused=e.what)
    cells = {
        name: scores.score_cell(
            predicted,
            series.masks,
            flagged=flags[name],
            expected_iou=expected[name],
            changed=series.changed,
            body=series.body,
        )
        for name, predicted in masks.items()
    }
    return cells | refused, masks


def describe_family(
    family: Family, cells: Mapping[Level, Mapping[str, Cell]], neutral: dict | None
) -> dict:
    """Return the scores of a family as they are written to robustness.json."""
    contestants = next(iter(cells.values()))
    has_lung = family.has_lung
    return {
        "meaning": family.meaning,
        "has_lung": has_lung,
        "moderate": list(family.moderate),
        "neutral": neutral,
        "levels": [
            {
                "level": level,
                "scores": {
                    name: scores.summarize_cell(cell, row[THRESHOLD], has_lung=has_lung)
                    for name, cell in row.items()
                },
            }
            for level, row in cells.items()
        ],
        "summary": {
            name: scores.summarize_family(
                [row[name] for row in cells.values()],
                [row[THRESHOLD] for row in cells.values()],
                levels=list(cells),
                moderate=family.moderate,
                has_lung=has_lung,
            )
            for name in contestants
        },
    }


def run_families(
    names: Sequence[str],
    slices: Sequence[Slice],
    segmenters: Mapping[str, LungSegmenter],
    *,
    without_lung: Path | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, dict, dict[Level, dict[str, Cell]], list[np.ndarray]]]:
    """Score families; yield the name, the scores, the cells and the tiles of each."""
    unchanged = Family(lambda *args: args[:2], "", (UNCHANGED,), (UNCHANGED,))
    neutral = None
    for name in (UNCHANGED, *names):
        family = unchanged if name == UNCHANGED else FAMILIES[name]
        if not family.has_lung and without_lung:
            levels = (*family.levels, REAL)
            family = dataclasses.replace(family, levels=levels, moderate=levels)
        cells, tiles = {}, []
        for level in family.levels:
            if level == REAL:
                series = series_without_lung(without_lung)
            else:
                series = change(name, level, slices, seed)
            cells[level], masks = score_series(series, segmenters)
            tiles.append(_tile(name, level, series, masks, next(iter(segmenters))))
        at = None
        if neutral and family.neutral is not None:
            at = {"level": family.neutral, "scores": neutral}
        described = describe_family(family, cells, at)
        if name == UNCHANGED:
            neutral = described["levels"][0]["scores"]
        yield name, described, cells, tiles


def robustness(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    paths = _named_paths(args.runs)
    names = _family_names(args.families)
    pairs, trained_here = held_out(find_pairs(args.data), paths, args.split)
    slices = [read_slice(pair) for pair in thin_out(pairs, args.slices)]
    segmenters = {
        name: load(path, members=args.members, postprocessing=args.postprocessing)
        for name, path in paths.items()
    }
    where = f"the {args.split} split of {', '.join(trained_here)}"
    _say(f"{len(slices)} slices of {where if trained_here else args.data}")
    bundles = [name for name, path in paths.items() if is_bundle(path)]
    if bundles:
        _say(f"bundles do not name their training slices: {', '.join(bundles)}")
    results = {
        "data": str(args.data),
        "split": args.split if trained_here else "all",
        "trained_on_this_data": trained_here,
        "slices": [s.name for s in slices],
        "seed": args.seed,
        "runs": list(segmenters),
        "paths": {name: str(path) for name, path in paths.items()},
        "families": {},
        "review": {},
    }
    rows, with_lung = [], {run: [] for run in segmenters}
    scored = run_families(
        names, slices, segmenters, without_lung=args.without_lung, seed=args.seed
    )
    for name, family, cells, tiles in scored:
        results["families"][name] = family
        rows.append(tiles)
        if family["has_lung"]:
            for run, of_run in with_lung.items():
                of_run += [row[run] for row in cells.values()]
        results["review"] = {
            run: scores.summarize_review(of_run) for run, of_run in with_lung.items()
        }
        results["seconds"] = round(time.perf_counter() - start, 1)
        results["cpu_seconds"] = round(time.process_time(), 1)  # if others use it, too
        if args.out:  # what is done survives an interruption
            _write_json(args.out, results)
        _say(f"{results['seconds']:7.1f} s  {name}")
    text = "\n\n".join(
        table(results)
        for table in (tables.level_table, tables.summary_table, tables.review_table)
    )
    print(text)
    if args.out:
        _write(args.out, results, text, rows if args.pictures else None)


def _write_json(folder: Path, results: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "robustness.json", results)


def _write(folder: Path, results: dict, text: str, tiles: list | None) -> None:
    (folder / "robustness.md").write_text(text + "\n")
    pictures.draw_figure(folder / "robustness.png", results)
    if tiles:
        pictures.write_sheet(folder / "pictures.png", tiles)
    _say(f"written: {folder}")


def _tile(name: str, level: Level, series: Series, masks, run: str) -> np.ndarray:
    i = len(series.images) // 2
    predicted = masks[run][i] if run in masks else None
    label = name if name == level else f"{name}: {tables.format_level(level, '')}"
    return pictures.draw_tile(series.images[i], series.masks[i], predicted, label)


def _body_pixels(s: Slice) -> int:
    return int(anatomy.body(s.image.astype(np.float32), s.mask > 0).sum())


def _digests(pairs: Sequence[Pair]) -> dict[str, str]:
    """Return the SHA-256 of each image by its path in the data folder."""
    return {
        f"{pair.image.parent.name}/{pair.image.name}": hashlib.sha256(
            pair.image.read_bytes()
        ).hexdigest()
        for pair in pairs
    }


def _named_paths(words: Sequence[str]) -> dict[str, Path]:
    """Read RUN or NAME=RUN; a run without a name is called like its folder."""
    paths = {}
    for word in words:
        name, separator, path = word.partition("=")
        path = Path(path if separator else word)
        name = name if separator else path.resolve().name
        if name in paths or name == THRESHOLD:
            raise UserError(
                f"two contestants are called {name!r}.", remedy="write NAME=RUN."
            )
        paths[name] = path
    return paths


def _family_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(FAMILIES)
    for name in names:
        if name not in FAMILIES:
            raise unknown_name("family", name, FAMILIES)
    return names


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run or bundle")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--split", choices=("test", "validation", "all"), default="test"
    )
    parser.add_argument("--families", default="", help="names, separated by commas")
    parser.add_argument("--slices", type=int, default=12, help="at most, evenly spaced")
    parser.add_argument("--members", default="all", help="as in lungseg predict")
    parser.add_argument("--postprocessing", default="tuned", help="likewise")
    parser.add_argument(
        "--without-lung", type=Path, help="a folder of pairs, for those without lung"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown and figure")
    parser.add_argument("--pictures", action="store_true", help="with --out")
    args = parser.parse_args()
    if args.slices < 1:
        parser.error("--slices must be at least 1")
    try:
        robustness(args)
    except (UserError, OSError) as e:
        print(e if isinstance(e, UserError) else f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
