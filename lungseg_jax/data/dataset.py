"""A data folder, prepared once as the tfds dataset `lung_ct`, and read by name."""

import contextlib
import dataclasses
import io
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lungseg_jax.data import preflight
from lungseg_jax.data.lung_ct.builder import SPLIT, LungCT
from lungseg_jax.data.lung_ct.shards import make_shards, unprepared, write_shards
from lungseg_jax.data.pairs import Pair, Slice
from lungseg_jax.data.phantom import dataset as phantoms
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.data.remote_folder import local_data_folder
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import atomic_folder, write_text
from lungseg_jax.runtime.locks import exclusive_lock


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Slices by name.

    Attributes:
      variant: of the tfds dataset: kaggle, phantom, folder_<dtype>.
      checked: the files, with their digests, and properties of the slices.
    """

    variant: str
    checked: CheckedFolder
    _index_by_name: Mapping[str, int]
    _source: Sequence[Mapping[str, np.ndarray]]
    _folder: Path

    @property
    def names(self) -> list[str]:
        return list(self._index_by_name)

    def slices(self, names: Iterable[str]) -> Iterator[Slice]:
        """Yield the named slices, in this order, at their original size.

        Raises:
          UserError: see `read`.
        """
        return map(self.read, names)

    def read(self, name: str) -> Slice:
        """Read a slice at its original size. Threads may call this at the same time.

        Raises:
          UserError: the prepared data are damaged.
        """
        try:
            record = self._source[self._index_by_name[name]]
        except (RuntimeError, TypeError, ValueError) as e:  # array_record's, or tfds's
            raise UserError(
                f"{name} cannot be read from the prepared data {self._folder}: {e}",
                rule="they are as they were written.",
                remedy=f"delete {self._folder}, which is prepared again from the files.",
            ) from e
        image, mask = record["image"][..., 0], record["mask"][..., 0]
        return Slice(name, image, mask, aspect=self.checked.metadata.aspect(name))

    def shapes(self, names: Iterable[str]) -> set[tuple[int, int, float]]:
        """Return the different heights, widths and pixel aspects of the named slices."""
        slices = (self.checked.slices[self._index_by_name[name]] for name in names)
        aspect = self.checked.metadata.aspect
        return {(info.height, info.width, aspect(info.name)) for info in slices}


def load_dataset(
    folder: Path | None, *, cache: Path, phantom_slices: int = 0, phantom_seed: int = 0
) -> Dataset:
    """Load the pairs of a folder, or phantoms if it is None.

    Both are prepared below `cache`, keyed by the content of the files: on first use, and
    again when they change.

    Args:
      folder: holds 2d_images/ and 2d_masks/, on this machine or on object storage.
      cache: folder for prepared data.
      phantom_slices, phantom_seed: the phantoms to draw if there is no folder.

    Raises:
      UserError: `preflight.check_folder` finds faults, or the cache has no space.
    """
    is_phantom = folder is None
    if is_phantom:
        folder = _phantom_folder(cache, slices=phantom_slices, seed=phantom_seed)
    folder = local_data_folder(folder, cache)
    checked = preflight.check_folder(folder, cache=cache)
    variant = "phantom" if is_phantom else _variant(checked)
    builder = _prepared_builder(folder, checked, variant=variant, cache=cache)
    return Dataset(
        variant=builder.builder_config.name,
        checked=checked,
        _index_by_name={pair.name: i for i, pair in enumerate(checked.pairs)},
        _source=builder.as_data_source(split=SPLIT),
        _folder=cache / "tfds" / checked.fingerprint,
    )


def _prepared_builder(
    folder: Path, checked: CheckedFolder, *, variant: str, cache: Path
) -> tfds.core.DatasetBuilder:
    """Return the tfds builder of a data folder, prepared now or by an earlier call."""
    data_dir = cache / "tfds" / checked.fingerprint
    # Written last: if it exists, everything else is complete.
    variant_file = data_dir / "variant"

    def is_ready() -> bool:
        return variant_file.exists() and any(data_dir.glob("*/*/*/dataset_info.json"))

    if not is_ready():
        with _exclusive(cache, f"tfds/{checked.fingerprint}.lock"):
            if not is_ready():
                shutil.rmtree(data_dir, ignore_errors=True)  # of an interrupted start
                _prepare(data_dir, variant, folder, checked.pairs)
                preflight.require_unchanged(checked.pairs, checked.digests)
                write_text(variant_file, variant)
    variant = variant_file.read_text()
    return tfds.builder_from_directory(
        data_dir / LungCT.name / variant / str(LungCT.VERSION)
    )


def _prepare(data_dir: Path, variant: str, folder: Path, pairs: Sequence[Pair]) -> None:
    """Prepare a data folder with tfds; what an interrupted call has written is kept."""
    written = data_dir.with_name(f"{data_dir.name}-{variant}-{LungCT.VERSION}")
    shards = make_shards(written, variant, pairs)
    left = [shard for shard in shards if not shard.path.exists()]
    slices_left = sum(len(shard.pairs) for shard in left)
    with progress.bar("preparing", len(pairs), done=len(pairs) - slices_left) as bar:
        write_shards(left, bar.update)
    builder = LungCT(data_dir=data_dir, config=variant, file_format="array_record")
    builder.written = [shard.path for shard in shards]
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder.absolute())
        )
    shutil.rmtree(written)


def _variant(checked: CheckedFolder) -> str:
    has_kaggle_names = all(
        re.fullmatch(r"ID_\d{4}_Z_\d{4}", pair.name) for pair in checked.pairs
    )
    if has_kaggle_names and (checked.dtype, checked.shape) == ("int16", (512, 512)):
        return "kaggle"
    return f"folder_{checked.dtype}"


def _phantom_folder(cache: Path, *, slices: int, seed: int) -> Path:
    """Return the folder of these phantoms, drawn now or by an earlier call."""
    name = f"v{phantoms.VERSION}-{slices}-slices-seed-{seed}"
    folder = cache / "phantom" / name
    if folder.exists():
        return folder
    with _exclusive(cache, "phantom.lock"):
        if not folder.exists():
            with (
                atomic_folder(folder) as temporary,
                progress.bar("drawing phantoms", slices) as bar,
            ):
                phantoms.write_phantoms(
                    temporary, slices=slices, seed=seed, progress=bar.update
                )
    return folder


@contextlib.contextmanager
def _exclusive(cache: Path, lock: str) -> Iterator[None]:
    """Let one process at a time write to the cache; a full disk is a `UserError`."""
    try:
        with exclusive_lock(cache / lock):
            yield
    except OSError as e:
        raise unprepared(cache, e) from e
