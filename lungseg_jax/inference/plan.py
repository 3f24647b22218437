"""Which input gives which outputs: all of it known, and allowed, before any is made."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lungseg_jax.data.io.formats import (
    EITHER,
    FORMATS,
    SLICE,
    VOLUME,
    format_of,
    is_dicom,
    is_volume,
    kind_of,
    split_suffix,
    suffixes,
)
from lungseg_jax.data.pairs import list_images
from lungseg_jax.runtime.errors import UserError, pluralize
from lungseg_jax.runtime.files import check_outputs

MAPS = {  # fields of a Segmentation that may be written beside a mask, float32
    "probability": "calibrated probability of lung",
    "uncertainty": "entropy of the probability, in bits",
    "mutual_information": "disagreement of the members, in bits",
}
OVERLAY = "overlay"
BESIDE = tuple(f"_{what}" for what in (*MAPS, OVERLAY))  # ends of these files' stems
FOR_DICOM = ".nii.gz"  # where the output names no format
NAMED = 5  # folders that an error names


@dataclasses.dataclass(frozen=True)
class PredictionTask:
    """One input and its mask.

    Attributes:
      source: a file, or the folder of a DICOM series.
      target: the file of the mask.
      is_volume: whether it is read and written slice by slice.
      overlay: the file of a picture, or None.
      maps: further images by what they show, fields of a Segmentation.
    """

    source: Path
    target: Path
    is_volume: bool
    overlay: Path | None = None
    maps: Mapping[str, Path] = dataclasses.field(default_factory=dict)

    @property
    def outputs(self) -> list[Path]:
        pictures = [self.overlay] if self.overlay else []
        return [self.target, *self.maps.values(), *pictures]


def plan_outputs(
    source: Path,
    target: Path,
    *,
    format: str = "",
    maps: Sequence[str] = (),
    overlay: bool = False,
    others: tuple[Path, ...] = (),
    overwrite: bool = False,
) -> list[PredictionTask]:
    """What is to be done.

    Args:
      source: a file, the folder of a DICOM series, or a folder of such files and folders.
      target: a file for a file or a series, else a folder.
      format: suffix of the masks in a folder; empty: that of the input.
      maps: write these images, too.
      overlay: and a picture.
      others: further outputs of the command.
      overwrite: outputs may exist.

    Raises:
      UserError: nothing to read, an output that exists or cannot be of that format, or
        one that is an input.
    """
    if format and not format.startswith("."):
        format = f".{format}"
    if format and format not in suffixes(writable=True):
        raise UserError(
            f"the format {format} is not known.",
            rule=f"one of {', '.join(suffixes(writable=True))}.",
        )
    if source.is_dir() and not is_dicom(source):
        jobs = list(_of_folder(source, target, format))
    elif source.is_dir():
        _refuse_a_mixture(source)
        jobs = [_of_one(source, _file_for(source, target, format))]
    elif source.is_file():
        jobs = [_of_one(source, _file_for(source, target, format))]
    elif source.exists():
        raise UserError(f"the input {source} is no file.")
    else:
        raise UserError(f"the input {source} does not exist.")
    jobs = [_with_others(job, maps, overlay) for job in jobs]
    check_outputs(
        [*(file for job in jobs for file in job.outputs), *others],
        inputs=[job.source for job in jobs],
        overwrite=overwrite,
    )
    return jobs


def _of_folder(source: Path, target: Path, format: str) -> Iterator[PredictionTask]:
    if split_suffix(target)[1]:
        raise UserError(f"{source} is a folder and {target} names one file.")
    files = list(list_images(source).values())
    inside = [p for p in sorted(source.iterdir()) if not p.name.startswith(".")]
    folders = [path for path in inside if path.is_dir()]
    files += [p for p in inside if kind_of(p) in (VOLUME, EITHER) and p.is_file()]
    files += [path for path in folders if is_dicom(path)]  # a series each
    if not files:
        named = ", ".join(path.name for path in folders[:NAMED])
        raise UserError(
            f"the folder {source} has no images.",
            rule=f"files that end in {', '.join(suffixes())}, or DICOM files.",
            remedy=f"name a folder in it ({named})." if folders else "",
        )
    for path in files:
        yield _of_one(path, _file_for(path, target, format, in_folder=True))


def _refuse_a_mixture(folder: Path) -> None:
    """A folder with DICOM files is a series: other images in it would be passed over."""
    others = [p.name for p in sorted(folder.iterdir()) if split_suffix(p)[1]]
    if others:
        raise UserError(
            f"{folder} has DICOM files and {pluralize(len(others), 'other image')}, "
            f"{others[0]} for one.",
            rule="a folder has the files of a DICOM series, or other images.",
            remedy="move one or the other into a folder of its own.",
        )


def _file_for(
    source: Path, target: Path, format: str, *, in_folder: bool = False
) -> Path:
    """The file of a mask, where the target may be a folder: a name without suffix is."""
    stem, suffix = split_suffix(source)
    own = suffix or FOR_DICOM
    if in_folder or target.is_dir() or not target.suffix and not target.exists():
        return target / f"{stem or source.resolve().name}{format or own}"
    if format:
        raise UserError(
            f"--format={format} with the file {target}.",
            rule="the name of an output file says its format.",
        )
    return target


def _of_one(source: Path, target: Path) -> PredictionTask:
    suffix = split_suffix(target)[1]
    slices = suffixes(SLICE, EITHER, writable=True)
    volumes = suffixes(VOLUME, EITHER, writable=True)
    if source.is_dir():
        as_volume, allowed = True, volumes
    elif is_volume(source):
        as_volume, allowed = True, volumes
        if not format_of(source).has_geometry:
            allowed = tuple(s for s in volumes if not FORMATS[s].has_geometry)
    elif kind_of(source):
        as_volume, allowed = False, slices
    elif is_dicom(source):
        as_volume, allowed = suffix not in slices, suffixes(writable=True)
    else:
        raise UserError(
            f"the input {source} is not in a known format.",
            rule=f"one of {', '.join(suffixes())}, or DICOM.",
        )
    if suffix not in allowed:
        raise UserError(
            f"the mask of {source} cannot be {target}.",
            rule=f"its name ends in one of {', '.join(allowed)}, or is a folder's.",
        )
    return PredictionTask(source, target, is_volume=as_volume)


def _with_others(
    job: PredictionTask, maps: Sequence[str], overlay: bool
) -> PredictionTask:
    stem, suffix = split_suffix(job.target)
    # 8 bits do not hold a probability or an entropy.
    suffix = ".tif" if kind_of(job.target) == SLICE else suffix
    beside = job.target.parent
    return dataclasses.replace(
        job,
        maps={what: beside / f"{stem}_{what}{suffix}" for what in maps},
        overlay=beside / f"{stem}_{OVERLAY}.png" if overlay else None,
    )
