"""The data of a run: its slices, their split, and where the training slices are."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lungseg_jax.data.data_folder import IMAGES, MASKS
from lungseg_jax.data.dataset import Dataset, load_dataset
from lungseg_jax.data.intensity import DOMAINS
from lungseg_jax.data.network_slices import NetworkSlices
from lungseg_jax.data.pairs import name_of
from lungseg_jax.data.preflight import CheckedFolder
from lungseg_jax.data.splits import Split, check_split, leave_out, split_names
from lungseg_jax.runtime import device_mesh
from lungseg_jax.runtime.cache import cache_root
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.runtime.files import folder_path
from lungseg_jax.runtime.outputs import require_outside
from lungseg_jax.training.config import (
    data_of,
    micro_batch_size,
    preprocessing_of,
)
from lungseg_jax.training.placement import Placement, choose_placement
from lungseg_jax.training.run import Run
from lungseg_jax.training.scaling import check_batch

# What to do about a window that does not fit the images, by their domain.
WINDOWS = {
    "HU": "--config.data.window_hu=-1000,400.",
    "8-bit": "--config.data.window_hu=0,255.",
    "unit": "--config.data.window_hu=0,1, or images in Hounsfield units.",
    "unsigned": "add the rescale intercept of the scans (often -1024) to the images, or "
    "move the window by it: --config.data.window_hu=24,1424.",
}


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run is trained, tuned and scored on.

    Attributes:
      dataset: all slices but the extra ones.
      split: their names.
      extra: phantoms in no split, which are mixed into the batches; None without any.
      placement: where the training slices are kept during the training.
    """

    dataset: Dataset
    split: Split
    extra: Dataset | None
    placement: Placement

    @property
    def is_streamed(self) -> bool:
        return self.placement.name == "streamed"

    def training_slices(self, c: ConfigDict) -> NetworkSlices:
        """Return the training split, and then the extra slices."""
        return network_slices(c, self.dataset, self.split["train"], self.extra)


def load_run_data(
    c: ConfigDict, cache: Path, *, room: int, recorded: Split | None = None
) -> RunData:
    """Load and split the data of a configuration, and check that they suit it.

    Args:
      c: passed `check_config`.
      cache: the root of the caches.
      room: see `choose_placement`.
      recorded: the split of a run that is resumed, which another version may have drawn
        otherwise; ignored if it is not one of these slices.

    Raises:
      UserError: the data are faulty, or do not suit the configuration or the devices.
    """
    dataset = load_dataset(**data_of(c), cache=cache)
    split = recorded
    if not split or sorted(sum(split.values(), [])) != dataset.names:
        split = split_of(c, dataset)
    check_slices(c, dataset, split)
    if not recorded:  # older versions did not look at the units
        check_window(c, dataset.checked)
    devices = len(device_mesh.devices_for(micro_batch_size(c)))
    extra = _load_extra_phantoms(c, cache)
    placement = choose_placement(
        c.data.placement,
        network_slices(c, dataset, split["train"], extra),
        batch_size=c.train.batch_size,
        devices=devices,
        room=room,
    )
    return RunData(dataset, split, extra, placement)


def digests_of(dataset: Dataset, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of some slices, by their paths."""
    wanted = set(names)
    digests = dataset.checked.digests
    return {path: digests[path] for path in digests if name_of(path) in wanted}


def check_slices(c: ConfigDict, dataset: Dataset, split: Split) -> None:
    """Check that a run can be trained on a split of these slices.

    Raises:
      UserError: see `check_split` and `check_batch`.
    """
    check_split(dataset.checked, split)
    devices = len(device_mesh.devices_for(micro_batch_size(c)))
    check_batch(c, training_slices=len(split["train"]), devices=devices)


def split_of(c: ConfigDict, dataset: Dataset) -> Split:
    """Return the split of a dataset that a configuration asks for.

    Training slices with a wrong label may be left out; those of phantoms are right.

    Raises:
      UserError: it cannot be split like that.
    """
    split = split_names(
        dataset.names,
        validation_fraction=c.data.validation_fraction,
        test_fraction=c.data.test_fraction,
        seed=c.data.split_seed,
        fold=c.data.fold,
        patients=dataset.checked.metadata.patients,
    )
    if c.data.dir and c.data.leave_out_air:
        return leave_out(split, dataset.checked.air_labels)
    return split


def check_window(c: ConfigDict, checked: CheckedFolder) -> None:
    """Check that the window is in the units of the images.

    Raises:
      UserError: it is not. Images of an unknown scale pass.
    """
    black, white = c.data.window_hu
    fits = {
        "HU": black < 0,
        "8-bit": black >= 0 and 1 < white <= 255,
        "unit": black >= 0 and white <= 1,
        "unsigned": black >= 0 and white > 255,
    }
    domain, (low, high, _) = checked.domain, checked.values
    if fits.get(domain, True) or c.data.preprocessing == "seed":
        return
    raise UserError(
        f"the images have {DOMAINS[domain]} ({low:g} to {high:g}), which "
        f"data.window_hu={black:g},{white:g} does not fit.",
        rule="the window is in the units of the images.",
        remedy=WINDOWS[domain],
    )


def require_outside_slices(path: Path, c: ConfigDict) -> None:
    """Check that an output is in neither 2d_images/ nor 2d_masks/ of the data folder.

    Raises:
      UserError: it is.
    """
    if c.data.dir:
        folder = folder_path(c.data.dir)
        require_outside([path], [folder / name for name in (IMAGES, MASKS)])


def load_dataset_of_run(run: Run, folder: Path | None = None) -> Dataset:
    """Load the slices of a run that has been started.

    Args:
      run: the run.
      folder: where the data folder is now; None if it has not moved.

    Raises:
      UserError: the data are missing or have changed.
    """
    source = data_of(run.config) | ({"folder": folder} if folder else {})
    dataset = load_dataset(**source, cache=cache_root(run.config.cache_dir))
    if dataset.checked.fingerprint != run.record["data"]["fingerprint"]:
        raise UserError(
            f"{source['folder'] or 'the phantom dataset'} is not what {run.folder.path} "
            "was trained on, or has changed since.",
            rule="a run is used with the data that it was started with.",
            remedy="name the folder as it was then with --data=DIR.",
        )
    return dataset


def network_slices(
    c: ConfigDict,
    dataset: Dataset,
    names: Sequence[str],
    extra: Dataset | None = None,
) -> NetworkSlices:
    """Return slices as they are kept on the device, and then all of the extra phantoms."""
    preprocessing = preprocessing_of(c)
    parts = [(dataset, names, preprocessing)]
    if extra:
        parts.append((extra, extra.names, preprocessing.of_hounsfield()))
    return NetworkSlices(parts, soft_masks=c.data.soft_masks)


def _load_extra_phantoms(c: ConfigDict, cache: Path) -> Dataset | None:
    """Load phantoms that are in no split: they have the next seed."""
    if not c.data.extra_phantoms:
        return None
    return load_dataset(
        None,
        cache=cache,
        phantom_slices=c.data.extra_phantoms,
        phantom_seed=c.data.phantom_seed + 1,
    )
