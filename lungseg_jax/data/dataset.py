"""A data folder, prepared once as the tfds dataset `lung_ct` and read by name."""

import contextlib
import dataclasses
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lungseg_jax.data import preflight
from lungseg_jax.data.lung_ct.builder import SPLIT, LungCT
from lungseg_jax.data.pairs import Slice
from lungseg_jax.data.phantom import dataset
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.data.preprocessing import image_to_network, mask_to_network
from lungseg_jax.runtime import progress
from lungseg_jax.runtime.cache import exclusive_lock
from lungseg_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Slices by name.

    Attributes:
      variant: of the tfds dataset: kaggle, phantom, folder_<dtype>.
      fingerprint: of the content of all files.
      digests: sha256 of each file, by its path in the data folder.
      dtype: of the pixels of all images.
      checked: what was seen in the files.
    """

    variant: str
    fingerprint: str
    digests: Mapping[str, str]
    dtype: str
    checked: CheckedFolder
    _records: Mapping[str, int]
    _read: object

    @property
    def names(self) -> list[str]:
        return list(self._records)

    def slices(self, names: Iterable[str]) -> Iterator[Slice]:
        """The named slices, in this order, at their own size."""
        for name in names:
            record = self._read[self._records[name]]
            yield Slice(name, record["image"][..., 0], record["mask"][..., 0])


def load_dataset(
    folder: Path | None, *, cache: Path, phantom_slices: int = 0, phantom_seed: int = 0
) -> Dataset:
    """The pairs of `folder`, or phantoms where it is None, prepared below `cache`.

    The prepared form is keyed by the content of the files: it is made on first use,
    reused while they stay the same, and made anew when they change.

    Raises:
      UserError: what `preflight.check_folder` refuses.
    """
    is_phantom = folder is None
    if is_phantom:
        folder = _phantom_folder(cache, slices=phantom_slices, seed=phantom_seed)
    checked = preflight.check_folder(folder, cache=cache)
    built = cache / "tfds" / checked.fingerprint
    variant_file = built / "variant"  # written last: all before it is there

    def is_ready() -> bool:
        return variant_file.exists() and any(built.glob("*/*/*/dataset_info.json"))

    if not is_ready():
        with _making(cache, f"tfds/{checked.fingerprint}.lock"):
            if not is_ready():
                shutil.rmtree(built, ignore_errors=True)  # what is left of an old one
                variant = "phantom" if is_phantom else _variant(checked)
                builder = LungCT(
                    data_dir=built, config=variant, file_format="array_record"
                )
                _prepare(builder, folder, len(checked.pairs))
                variant_file.write_text(variant)
    variant = variant_file.read_text()
    builder = tfds.builder_from_directory(
        built / LungCT.name / variant / str(LungCT.VERSION)
    )
    return Dataset(
        variant=variant,
        fingerprint=checked.fingerprint,
        digests=checked.digests,
        dtype=np.dtype(builder.info.features["image"].np_dtype).name,
        checked=checked,
        _records={pair.name: i for i, pair in enumerate(checked.pairs)},
        _read=builder.as_data_source(split=SPLIT),
    )


def to_network_arrays(
    slices: Iterable[Slice],
    *,
    preprocessing: str,
    image_size: int,
    window_hu: tuple[float, float],
    soft_masks: bool,
) -> dict[str, np.ndarray]:
    """Slices in memory at the network's size: "image" `[n s s c]`, "mask" `[n s s]`."""
    images, masks = [], []
    for one in slices:
        images.append(
            image_to_network(
                one.image,
                preprocessing=preprocessing,
                image_size=image_size,
                window_hu=window_hu,
            )
        )
        masks.append(
            mask_to_network(
                one.mask,
                preprocessing=preprocessing,
                image_size=image_size,
                soft=soft_masks,
            )
        )
    return {"image": np.stack(images), "mask": np.stack(masks)}


@contextlib.contextmanager
def _making(cache: Path, lock: str) -> Iterator[None]:
    """What is made in the cache is made by one process, or there is no room for it."""
    try:
        with exclusive_lock(cache / lock):
            yield
    except (OSError, RuntimeError) as e:  # array_record knows no OSError
        raise UserError(
            f"the data could not be prepared in {cache}: {e}",
            rule=f"{shutil.disk_usage(cache).free / 1e6:.0f} MB are free there.",
            remedy="make room, or name another folder with --config.cache_dir=DIR.",
        ) from e


def _phantom_folder(cache: Path, *, slices: int, seed: int) -> Path:
    name = f"v{dataset.VERSION}-{slices}-slices-seed-{seed}"
    folder = cache / "phantom" / name
    if folder.exists():
        return folder
    with _making(cache, "phantom.lock"):
        if not folder.exists():
            _draw(folder, slices=slices, seed=seed)
    return folder


def _draw(folder: Path, *, slices: int, seed: int) -> None:
    """Under another name first, so that an interrupted start leaves no half set."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with progress.bar("drawing phantoms", slices) as bar:
            dataset.write_phantoms(
                partial, slices=slices, seed=seed, progress=bar.update
            )
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _variant(checked: CheckedFolder) -> str:
    kaggle_names = all(
        re.fullmatch(r"ID_\d{4}_Z_\d{4}", pair.name) for pair in checked.pairs
    )
    if kaggle_names and (checked.dtype, checked.shape) == ("int16", (512, 512)):
        return "kaggle"
    return f"folder_{checked.dtype}"


def _prepare(builder: LungCT, folder: Path, total: int) -> None:
    tfds.disable_progress_bar()
    with (
        progress.bar("preparing", total) as bar,
        contextlib.redirect_stdout(io.StringIO()),  # tfds prints; the bar says the same
    ):
        builder.advance = bar.update
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder.absolute())
        )
