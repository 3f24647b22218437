"""The data of a run: units of the images, and phantoms beside them."""

import cv2
import numpy as np
import pytest

from lungseg_jax.data.dataset import load_dataset
from lungseg_jax.data.preprocessing import CT_WINDOW_HU, Preprocessing
from lungseg_jax.runtime.errors import UserError
from lungseg_jax.training.config import default_config
from lungseg_jax.training.run_data import load_run_data, network_slices

STORED = {  # what becomes of Hounsfield units, and the window of it
    "HU": (lambda hu: hu.astype(np.int16), (-1000, 400)),
    "8-bit": (lambda hu: ((hu + 1000) * 0.18).clip(0, 255).astype(np.uint8), (0, 255)),
    "unit": (lambda hu: ((hu + 1000) / 2000).astype(np.float32), (0, 1)),
    "unsigned": (lambda hu: (hu + 1024).astype(np.uint16), (24, 1424)),
}


@pytest.mark.parametrize("domain", STORED)
@pytest.mark.parametrize("kind", ["hu", "window"])
def test_a_window_of_other_units_is_refused(pair_folder, tmp_path, kind, domain):
    folder = pair_folder([f"s{i}" for i in range(12)])
    store, window = STORED[domain]
    for file in (folder / "2d_images").iterdir():
        hu = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).view(np.int16)
        assert cv2.imwrite(str(file), store(hu.astype(np.float32)))
    c = default_config()
    c.data.dir, c.data.preprocessing, c.train.batch_size = str(folder), kind, 4
    for other in [other for _, other in STORED.values() if other != window]:
        c.data.window_hu = tuple(map(float, other))
        with pytest.raises(UserError, match="does not fit") as caught:
            load_run_data(c, tmp_path / "cache", room=0)
        assert f"--config.data.window_hu={window[0]},{window[1]}" in caught.value.remedy
    c.data.window_hu = tuple(map(float, window))
    data = load_run_data(c, tmp_path / "cache", room=0)
    # A run that an older version started is resumed.
    c.data.window_hu = (50.0, 60.0)
    load_run_data(c, tmp_path / "cache", room=0, recorded=data.split)


def test_a_training_slice_with_air_around_the_body_as_lung_is_left_out(
    pair_folder, tmp_path
):
    folder = pair_folder([f"s{i}" for i in range(12)])
    c = default_config()
    c.data.dir, c.train.batch_size = str(folder), 4
    split = load_run_data(c, tmp_path / "cache", room=0).split
    for part in ("train", "test"):
        file = folder / "2d_images" / f"{split[part][0]}.tif"
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        image[20, 20:] = -1000  # from the lung to the border
        assert cv2.imwrite(str(file), image)
        left_out = split["train"][:1] if part == "train" else []  # two are many
        data = load_run_data(c, tmp_path / "cache", room=0)
        kept = [name for name in split["train"] if name not in left_out]
        assert data.split == split | {"train": kept} | (
            {"left_out": left_out} if left_out else {}
        )
        assert len(data.training_slices(c)) == len(kept)
        if left_out:
            c.data.leave_out_air = False
            assert load_run_data(c, tmp_path / "cache", room=0).split == split
            # A run is resumed with its own split.
            resumed = load_run_data(c, tmp_path / "c", room=0, recorded=data.split)
            assert resumed.split == data.split
            c.data.leave_out_air = True


@pytest.mark.parametrize("kind", ["hu", "window"])
def test_phantoms_beside_gray_values_keep_their_hounsfield_units(
    pair_folder, tmp_path, kind
):
    cache = tmp_path / "cache"
    gray = load_dataset(pair_folder(["a"], dtype="uint8"), cache=cache)
    phantoms = load_dataset(None, cache=cache, phantom_slices=3)
    c = default_config()
    c.data.image_size, c.data.preprocessing = 20, kind
    c.data.window_hu = (0.0, 255.0)
    slices = network_slices(c, gray, gray.names, phantoms)
    for i, name in enumerate(phantoms.names, start=1):
        image = Preprocessing(kind, 20, CT_WINDOW_HU).image(phantoms.read(name).image)
        np.testing.assert_array_equal(slices[i]["image"], image)
