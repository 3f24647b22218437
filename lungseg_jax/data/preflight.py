"""Every file is read once before anything is built on it; all faults in one table."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lungseg_jax.data.intensity import Values, detect_intensity
from lungseg_jax.data.io.images import read_image, read_mask
from lungseg_jax.data.metadata import TABLE, SliceMetadata, read_metadata
from lungseg_jax.data.pairs import Pair, scan
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError, combine_errors, pluralize
from lungseg_jax.runtime.files import write_text

THREADS = 8
VERSION = 1  # of what is checked; an older result is not believed


@dataclasses.dataclass(frozen=True)
class SliceInfo:
    """What was seen in one pair.

    Attributes:
      name: of the pair.
      dtype: of the image.
      height, width: of both.
      low, high: the least and the largest value of the image.
      lung: pixels in the mask.
      picture: a digest of the image's pixels, whatever its file.
    """

    name: str
    dtype: str
    height: int
    width: int
    low: float
    high: float
    lung: int
    picture: str


@dataclasses.dataclass(frozen=True)
class CheckedFolder:
    """A data folder without a fault.

    Attributes:
      pairs: sorted by name.
      digests: sha256 of each file, by its path in the data folder.
      fingerprint: one short name for all of them.
      seen: in the order of the pairs.
      table: what slices.csv says.
    """

    pairs: Sequence[Pair]
    digests: Mapping[str, str]
    fingerprint: str
    seen: Sequence[SliceInfo]
    table: SliceMetadata

    @property
    def dtype(self) -> str:
        """Of all images."""
        return self.seen[0].dtype

    @property
    def domain(self) -> str:
        """What the values are, a key of `data.domain.DOMAINS`."""
        low, high = (
            min(one.low for one in self.seen),
            max(one.high for one in self.seen),
        )
        return detect_intensity(Values(low, high))

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width, if all images share them."""
        shapes = {(one.height, one.width) for one in self.seen}
        return shapes.pop() if len(shapes) == 1 else None

    @property
    def duplicates(self) -> list[list[str]]:
        """Names of images with equal pixels, those of a picture together."""
        names: dict[str, list[str]] = {}
        for one in self.seen:
            names.setdefault(one.picture, []).append(one.name)
        return [group for group in names.values() if len(group) > 1]


def check_folder(folder: Path, *, cache: Path | None = None) -> CheckedFolder:
    """Reads each file of a data folder.

    Args:
      folder: holds 2d_images/ and 2d_masks/.
      cache: where the result is kept by the content of the files, so that they are not
        decoded again before one of them changes.

    Raises:
      UserError: with a line for each fault: what `pairs.scan` finds, unreadable or
        truncated files, colour, masks with other values, shapes that differ within a
        pair, mixed dtypes.
    """
    pairs, faults = scan(folder)
    digests, unreadable = _digests(pairs)
    table = SliceMetadata({}, {})
    if not faults:
        table = read_metadata(folder, [pair.name for pair in pairs])
        if table != SliceMetadata({}, {}):
            digests[TABLE] = _sha256(folder / TABLE)
    fingerprint = fingerprint_of(digests)
    kept = cache and cache / "checked" / f"{fingerprint}.json"
    seen = _recall(kept, pairs) if kept and not faults and not unreadable else None
    if seen is None:
        readable = [pair for pair in pairs if pair not in unreadable]
        seen, more = _read(readable)
        faults = [*faults, *unreadable.values(), *more]
        if faults:
            raise combine_errors(faults, str(folder))
        if kept:
            _keep(kept, seen)
    return CheckedFolder(pairs, digests, fingerprint, seen, table)


def check_split(checked: CheckedFolder, split: Mapping[str, Sequence[str]]) -> None:
    """Refuses a split that would score a network on what it was trained with.

    Args:
      checked: the slices.
      split: their names by "train", "validation" and "test".

    Raises:
      UserError: equal images in two of them, all in one table; or no lung to train on.
    """
    part = {name: key for key, names in split.items() for name in names}
    leaks = [
        UserError(
            " = ".join(f"{name} ({part[name]})" for name in group),
            rule="no picture is in two of train, validation and test.",
            remedy="remove all but one of each row, image and mask.",
        )
        for group in checked.duplicates
        if len({part[name] for name in group}) > 1
    ]
    if leaks:
        raise combine_errors(leaks, "the split: equal pictures under several names")
    train = set(split["train"])
    if not any(one.lung for one in checked.seen if one.name in train):
        raise UserError(
            f"the masks of {pluralize(len(train), 'training slice')} are all empty.",
            rule="at least one slice to train on has lung.",
            remedy="add slices with lung, or look at how the masks were written.",
        )


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """One short name for the content of a whole data folder."""
    rows = "\n".join(f"{path} {digests[path]}" for path in sorted(digests))
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _digests(pairs: Sequence[Pair]) -> tuple[dict[str, str], dict[Pair, UserError]]:
    """The sha256 of each file by its path in the folder; a fault for each lost pair."""
    digests, unreadable = {}, {}
    files = [(pair, path) for pair in pairs for path in (pair.image, pair.mask)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(_sha256, [path for _, path in files])
        for (pair, path), digest in zip(files, found, strict=True):
            if isinstance(digest, UserError):
                unreadable[pair] = digest
            else:
                digests[f"{path.parent.name}/{path.name}"] = digest
    return digests, unreadable


def _sha256(path: Path) -> str | UserError:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        return UserError(
            f"{path} cannot be read: {e.strerror}.",
            rule="every file can be read.",
            remedy="check that it is there, and its permissions.",
        )


def _read(pairs: Sequence[Pair]) -> tuple[list[SliceInfo], list[UserError]]:
    seen, faults, dtypes = [], [], {}
    with (
        progress.bar("checking", len(pairs)) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for pair, (one, found) in zip(pairs, pool.map(_look, pairs), strict=True):
            faults += found
            if one:
                seen.append(one)
                dtypes.setdefault(one.dtype, pair.image.name)
            bar.update()
    if len(dtypes) > 1:
        examples = ", ".join(f"{d} ({name})" for d, name in dtypes.items())
        faults.append(
            UserError(
                f"images of several types: {examples}.",
                rule="one type for all.",
                remedy="save all of them as one type; CT values fit int16.",
            )
        )
    return seen, faults


def _look(pair: Pair) -> tuple[SliceInfo | None, list[UserError]]:
    faults, arrays = [], []
    for read, path in ((read_image, pair.image), (read_mask, pair.mask)):
        try:
            arrays.append(read(path))
        except UserError as e:
            faults.append(e)
    if faults:
        return None, faults
    image, mask = arrays
    height, width = image.shape
    if image.shape != mask.shape:
        faults.append(
            UserError(
                f"{pair.name}: the image is {image.shape}, its mask {mask.shape}.",
                rule="equal heights and widths.",
                remedy="pair the image with its own mask, unscaled.",
            )
        )
    picture = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    picture.update(image.data)
    one = SliceInfo(
        name=pair.name,
        dtype=str(image.dtype),
        height=height,
        width=width,
        low=image.min().item(),
        high=image.max().item(),
        lung=int(mask.sum(dtype=int)),
        picture=picture.hexdigest()[:32],
    )
    return one, faults


def _keep(file: Path, seen: Sequence[SliceInfo]) -> None:
    rows = [dataclasses.astuple(one) for one in seen]
    with contextlib.suppress(UserError):  # a full disk costs a second look, no more
        write_text(file, json.dumps({"version": VERSION, "slices": rows}) + "\n")


def _recall(file: Path, pairs: Sequence[Pair]) -> list[SliceInfo] | None:
    """What `_keep` wrote; None where there is nothing that can be believed."""
    try:
        kept = json.loads(file.read_bytes())
        seen = [SliceInfo(*row) for row in kept["slices"]]
        version = kept["version"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    types = [field.type for field in dataclasses.fields(SliceInfo)]
    for one in seen:
        for value, kind in zip(dataclasses.astuple(one), types, strict=True):
            if not isinstance(value, int | float if kind is float else kind):
                return None
    names = [one.name for one in seen]
    return seen if (version, names) == (VERSION, [p.name for p in pairs]) else None
