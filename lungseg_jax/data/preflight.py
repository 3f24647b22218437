"""Checks of a data folder: every file is read once, and all faults are reported."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lungseg_jax.data.intensity import Values, detect_intensity, pool_values, values_of
from lungseg_jax.data.io import formats
from lungseg_jax.data.metadata import TABLE, SliceMetadata, read_metadata
from lungseg_jax.data.outside_air import air_labels, outside_air
from lungseg_jax.data.pairs import Pair, Slice, read_slice, scan
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, combine_errors
from lungseg_jax.runtime.files import write_text

THREADS = 8
VERSION = 3  # of the checks; cached results of another version are ignored


@dataclasses.dataclass(frozen=True)
class SliceInfo:
    """Properties of one pair.

    Attributes:
      name: of the pair.
      dtype: of the image.
      height, width: of both.
      low, high, dense: the `Values` of the image.
      lung_pixels: number of pixels in the mask.
      outside_air: share of the mask that is air around the body, if the image is in
        Hounsfield units; see `outside_air`.
      image_digest: digest of the image's pixels, independent of its file format.
    """

    name: str
    dtype: str
    height: int
    width: int
    low: float
    high: float
    dense: float
    lung_pixels: int
    outside_air: float
    image_digest: str


@dataclasses.dataclass(frozen=True)
class CheckedFolder:
    """A data folder without faults.

    Attributes:
      pairs: sorted by name.
      digests: sha256 of each file, by its path in the data folder.
      fingerprint: a short digest of all of them.
      slices: properties of the slices, in the order of the pairs.
      metadata: the content of slices.csv.
    """

    pairs: Sequence[Pair]
    digests: Mapping[str, str]
    fingerprint: str
    slices: Sequence[SliceInfo]
    metadata: SliceMetadata

    def read(self, pair: Pair) -> Slice:
        """Read a pair at its original size, with the aspect of slices.csv."""
        return read_slice(pair, aspect=self.metadata.aspect(pair.name))

    @property
    def dtype(self) -> str:
        """The dtype of all images."""
        return self.slices[0].dtype

    @property
    def values(self) -> Values:
        """Statistics of the pixel values of all images."""
        return pool_values(Values(i.low, i.high, i.dense) for i in self.slices)

    @property
    def domain(self) -> str:
        """The units of the images, a key of `intensity.DOMAINS`."""
        return detect_intensity(self.values)

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width, if all images share them."""
        shapes = {(info.height, info.width) for info in self.slices}
        return shapes.pop() if len(shapes) == 1 else None

    @property
    def duplicates(self) -> list[list[str]]:
        """Names of images with equal pixels, grouped by image; blank ones are left out."""
        groups: dict[str, list[str]] = {}
        for info in self.slices:
            if info.low < info.high:  # padding is the same in all patients
                groups.setdefault(info.image_digest, []).append(info.name)
        return [names for names in groups.values() if len(names) > 1]

    @property
    def air_labels(self) -> list[str]:
        """Names of the slices whose label has the air around the body as lung."""
        if self.domain != "HU":
            return []
        return air_labels({info.name: info.outside_air for info in self.slices})


def check_folder(folder: Path, *, cache: Path | None = None) -> CheckedFolder:
    """Read and check every file of a data folder.

    Args:
      folder: holds 2d_images/ and 2d_masks/.
      cache: folder for results, keyed by the content of the files: they are not decoded
        again until one of them changes.

    Raises:
      UserError: with a row for each fault: those that `pairs.scan` finds, unreadable or
        truncated files, color, masks with other values, different shapes within a pair,
        mixed dtypes.
    """
    pairs, faults = scan(folder)
    digests, unreadable = _digest_files(pairs)
    table = SliceMetadata({}, {})
    if not faults:
        table = read_metadata(folder, [pair.name for pair in pairs])
        if table != SliceMetadata({}, {}):
            digests[TABLE] = _sha256(folder / TABLE)
    fingerprint = fingerprint_of(digests)
    cached = cache and cache / "checked" / f"{fingerprint}.json"
    infos = None
    if cached and not faults and not unreadable:
        infos = _read_cached(cached, pairs)
    if infos is None:
        readable = [pair for pair in pairs if pair not in unreadable]
        infos, content_faults = _inspect_pairs(readable)
        faults = [*faults, *unreadable.values(), *content_faults]
        if faults:
            raise combine_errors(faults, str(folder))
        require_unchanged(pairs, digests)
        if cached:
            _write_cached(cached, infos)
    return CheckedFolder(pairs, digests, fingerprint, infos, table)


def require_unchanged(pairs: Sequence[Pair], digests: Mapping[str, str]) -> None:
    """Check that the files of pairs, which were read since, are still those of `digests`.

    What is kept of them under their fingerprint would otherwise be of other files.

    Raises:
      UserError: a file has changed, or cannot be read any more.
    """
    again, unreadable = _digest_files(pairs)
    faults = [*unreadable.values()]
    faults += [
        UserError(
            f"{path} has changed while it was read.",
            rule="the files of a data folder do not change while they are prepared.",
            remedy="run the command again when nothing writes to them.",
        )
        for path in again
        if again[path] != digests[path]
    ]
    if faults:
        raise combine_errors(faults, "the data folder")


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """Return a short digest of the content of an entire data folder."""
    rows = "\n".join(f"{path} {digests[path]}" for path in sorted(digests))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _digest_files(
    pairs: Sequence[Pair],
) -> tuple[dict[str, str], dict[Pair, UserError]]:
    """Return the sha256 of each file by its path in the folder, and faults by pair."""
    digests, unreadable = {}, {}
    files = [(pair, path) for pair in pairs for path in (pair.image, pair.mask)]
    with ThreadPoolExecutor(THREADS) as pool:
        results = [pool.submit(_sha256, path) for _, path in files]
        for (pair, path), result in zip(files, results, strict=True):
            try:
                digests[f"{path.parent.name}/{path.name}"] = result.result()
            except UserError as e:
                unreadable[pair] = e
    return digests, unreadable


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise UserError(
            f"{path} cannot be read: {e.strerror}.",
            rule="every file is readable.",
            remedy="check that it exists, and its permissions.",
        ) from e


def _inspect_pairs(pairs: Sequence[Pair]) -> tuple[list[SliceInfo], list[UserError]]:
    infos, faults, example_by_dtype = [], [], {}
    with (
        progress.bar("checking", len(pairs)) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        results = pool.map(_inspect_pair, pairs)
        for pair, (info, pair_faults) in zip(pairs, results, strict=True):
            faults += pair_faults
            if info:
                infos.append(info)
                example_by_dtype.setdefault(info.dtype, pair.image.name)
            bar.update()
    if len(example_by_dtype) > 1:
        examples = [f"{dtype} ({name})" for dtype, name in example_by_dtype.items()]
        faults.append(
            UserError(
                f"images of several types: {', '.join(examples)}.",
                rule="one type for all.",
                remedy="save all of them as one type; CT values fit int16.",
            )
        )
    return infos, faults


def _inspect_pair(pair: Pair) -> tuple[SliceInfo | None, list[UserError]]:
    faults, arrays = [], []
    for read, path in (
        (formats.read_slice_array, pair.image),
        (formats.read_slice_mask, pair.mask),
    ):
        try:
            arrays.append(read(path))
        except UserError as e:
            faults.append(e)
    if faults:
        return None, faults
    image, mask = arrays
    height, width = image.shape
    if image.shape != mask.shape:
        fault = UserError(
            f"{pair.name}: the image is {image.shape}, its mask {mask.shape}.",
            rule="equal heights and widths.",
            remedy="pair the image with its own mask, without scaling.",
        )
        return None, [fault]
    pixels = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    pixels.update(image.data)
    low, high, dense = values_of([image])
    info = SliceInfo(
        name=pair.name,
        dtype=str(image.dtype),
        height=height,
        width=width,
        low=low,
        high=high,
        dense=dense,
        lung_pixels=int(mask.sum(dtype=int)),
        outside_air=outside_air(image, mask > 0),
        image_digest=pixels.hexdigest()[:32],
    )
    return info, []


def _write_cached(file: Path, infos: Sequence[SliceInfo]) -> None:
    rows = [dataclasses.astuple(info) for info in infos]
    with contextlib.suppress(UserError):  # a full disk only costs a second check
        write_text(file, json.dumps({"version": VERSION, "slices": rows}) + "\n")


def _read_cached(file: Path, pairs: Sequence[Pair]) -> list[SliceInfo] | None:
    """Return the content of `_write_cached`; None if it is missing, damaged or outdated."""
    try:
        content = json.loads(file.read_bytes())
        infos = [SliceInfo(*row) for row in content["slices"]]
        version = content["version"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    types = [field.type for field in dataclasses.fields(SliceInfo)]
    for info in infos:
        for value, type_ in zip(dataclasses.astuple(info), types, strict=True):
            if not isinstance(value, int | float if type_ is float else type_):
                return None
    names = [info.name for info in infos]
    expected = VERSION, [pair.name for pair in pairs]
    return infos if (version, names) == expected else None
