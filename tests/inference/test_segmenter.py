"""The Python interface: arrays in, masks and their uncertainty out."""

import dataclasses
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lungseg_jax.inference.ensemble.trained import TunedSettings
from lungseg_jax.inference.postprocessing import postprocess
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.metrics.calibration import apply_temperature
from lungseg_jax.metrics.uncertainty import entropy, expected_iou, mutual_information
from lungseg_jax.runtime.errors import UserError


def test_a_slice_combines_threshold_clean_up_calibration_and_review(
    segmenter, trained, images
):
    image = images[0]
    segmentation = segmenter(image)
    (members,) = trained.predictor().probabilities([(image, 1.0)])
    mean = members.mean(axis=0)
    calibrated = apply_temperature(mean, 1.5)
    np.testing.assert_allclose(segmentation.probability, calibrated, atol=1e-6)
    mask = postprocess(mean > 0.5, "fill_holes")
    np.testing.assert_array_equal(segmentation.mask, mask)
    np.testing.assert_allclose(segmentation.uncertainty, entropy(calibrated), atol=1e-5)
    np.testing.assert_allclose(
        segmentation.mutual_information, mutual_information(members), atol=1e-5
    )
    expected = pytest.approx(expected_iou(calibrated, mask), abs=1e-5)
    assert segmentation.expected_iou == expected
    assert segmentation.review == (segmentation.expected_iou < 0.6)
    assert segmentation.mask.shape == image.shape and segmentation.mask.dtype == bool
    assert (
        segmentation.probability.dtype == segmentation.uncertainty.dtype == np.float32
    )


@pytest.mark.parametrize("domain,is_dropped", [("HU", True), ("uint8", False)])
def test_fluid_is_dropped_by_its_density_in_hounsfield_units(
    domain, is_dropped, trained
):
    image = np.full((64, 64), -700.0, np.float32)
    image[40:] = 5.0  # as water
    trained = dataclasses.replace(trained, domain=domain)
    segmenter = LungSegmenter(trained, postprocessing="drop_fluid")
    mask = segmenter.combine(np.ones((2, 64, 64), np.float32), image).mask
    assert mask[:38].all() and mask[42:].any() != is_dropped
    kept = LungSegmenter(trained, postprocessing="fill_holes")
    assert kept.combine(np.ones((2, 64, 64), np.float32), image).mask.all()


def test_a_batch_equals_its_slices_one_by_one(segmenter, images):
    batch = segmenter(images)
    assert batch.mask.shape == images.shape
    assert batch.expected_iou.shape == batch.review.shape == (5,)
    for i, image in enumerate(images):
        single = segmenter(image)
        np.testing.assert_array_equal(batch.mask[i], single.mask)
        np.testing.assert_allclose(batch.uncertainty[i], single.uncertainty, atol=1e-5)
        assert batch.review[i] == single.review


def test_results_of_slices_are_copied_as_they_come(segmenter, images, monkeypatch):
    """A list of them would take as much memory as the result."""
    alive, counts = weakref.WeakSet(), []

    def combine(self, probabilities, image, combine=LungSegmenter.combine):
        alive.add(made := combine(self, probabilities, image))
        counts.append(len(alive))
        return made

    monkeypatch.setattr(LungSegmenter, "combine", combine)
    segmenter(images)
    assert len(counts) == len(images) and max(counts) <= 2


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_accepts_any_numeric_dtype(segmenter, images, dtype):
    expected = segmenter(images[0])
    segmentation = segmenter(images[0].astype(dtype))
    np.testing.assert_array_equal(segmentation.mask, expected.mask)


@pytest.mark.parametrize("shape", [(7, 90), (200, 33), (32, 32), (1, 1)])
def test_accepts_slices_of_any_size(segmenter, shape):
    image = np.random.default_rng(0).integers(-1000, 0, shape)
    assert segmenter(image).mask.shape == shape


def test_each_choice_of_members_has_its_own_settings(trained):
    assert trained.settings() == TunedSettings(1.5, "fill_holes", 0.6, "all")
    assert trained.subset(["30"]).settings() == TunedSettings(
        2.0, "fill_holes", 0.5, "last"
    )
    # A subset that is not a named choice gets the settings of all, without the name.
    assert trained.subset(["10", "30"]).settings() == TunedSettings(
        1.5, "fill_holes", 0.6, ""
    )


def test_without_tuning_nothing_is_calibrated_or_reviewed(trained, images):
    plain = LungSegmenter(dataclasses.replace(trained, tuning={}))
    segmentation = plain(images[:2])
    assert segmentation.review is None and plain.settings == TunedSettings()
    (members,) = trained.predictor().probabilities([(images[0], 1.0)])
    mean = members.mean(axis=0)
    np.testing.assert_allclose(segmentation.probability[0], mean, atol=1e-6)


def test_loading_what_was_not_tuned_says_so(trained, monkeypatch, capsys):
    """As a run whose tuning.json is lost, or was changed."""
    for loaded in (trained, dataclasses.replace(trained, tuning={})):
        monkeypatch.setattr(
            "lungseg_jax.inference.segmenter.load_ensemble",
            lambda *_, loaded=loaded, **__: loaded,
        )
        load("RUN")
        says = "WARNING: RUN was not tuned" in capsys.readouterr().out
        assert says == (not loaded.tuning)


def test_clean_up_replaces_the_tuned_one(trained):
    settings = LungSegmenter(trained, postprocessing="two_largest").settings
    assert settings.postprocessing == "two_largest" and settings.temperature == 1.5
    with pytest.raises(UserError, match="unknown postprocessing 'polish'"):
        LungSegmenter(trained, postprocessing="polish")


def test_flips_average_over_mirror_images(trained, segmenter, images):
    flipped = LungSegmenter(trained, flips=True)(images[0])
    plain = segmenter(images[0])
    gap = np.abs(flipped.probability - plain.probability)
    assert gap.max() > 1e-4
    # The average over all mirror images is the same for each of them.
    mirrored = LungSegmenter(trained, flips=True)(images[0][::-1])
    np.testing.assert_allclose(
        mirrored.probability[::-1], flipped.probability, atol=1e-5
    )


@pytest.mark.parametrize(
    "array,message",
    [
        (np.zeros((2, 2, 2, 2)), "not an image"),
        (np.zeros((0, 4)), "not an image"),
        (np.array([["a"]]), "not an image"),
        (np.array([[True]]), "not an image"),
        (np.array([[np.nan, -500.0]]), "NaN"),
        (np.arange(256).reshape(16, 16), "gray values from 0 to 255"),
        (np.linspace(0, 1, 16).reshape(4, 4), "values scaled to about 1"),
        (np.array([[0, 3000]], np.uint16), "before the offset is added"),
        (np.array([[-21, 1000]]), "before the offset is added"),  # air with noise
        (np.full((16, 16, 3), -500), "channels last"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], "differ in size"),
    ],
)
def test_refuses_arrays_that_are_not_ct_slices(segmenter, array, message):
    with pytest.raises(UserError, match=message):
        segmenter(array)


def test_names_the_file_of_a_slice_in_other_units(segmenter, tmp_path):
    np.save(tmp_path / "e.npy", np.arange(256).reshape(16, 16))
    with pytest.raises(UserError, match="e.npy has gray values"):
        segmenter(tmp_path / "e.npy")


@pytest.mark.parametrize("name,error", [("none", "exist"), (".", "no DICOM files")])
def test_says_what_is_wrong_with_a_path(segmenter, name, error, tmp_path):
    with pytest.raises(UserError, match=error):
        segmenter(tmp_path / name)


def test_refuses_a_scan_with_a_slice_in_other_units(segmenter, images, tmp_path):
    images = np.concatenate([images] * 6)
    images[3] += 1100
    np.save(tmp_path / "scan.npy", images)
    with pytest.raises(UserError, match="slice 3 of .* before the offset is added"):
        segmenter(tmp_path / "scan.npy")


def test_refuses_an_array_with_a_slice_in_other_units(segmenter, images):
    images = np.concatenate([images] * 6)
    images[3] += 1100
    with pytest.raises(UserError, match="slice 3 of .* before the offset is added"):
        segmenter(images)


def test_a_segmenter_that_was_used_can_be_pickled(segmenter, images):
    expected = segmenter(images[0])
    copy = pickle.loads(pickle.dumps(segmenter))
    np.testing.assert_array_equal(copy(images[0]).mask, expected.mask)


def test_a_segmenter_and_its_ensemble_are_shown_in_a_line(segmenter):
    assert "members: " in repr(segmenter)
    assert len(repr(segmenter.trained)) < 500


def test_does_not_modify_its_input(segmenter, images):
    before = images.copy()
    segmenter(images)
    np.testing.assert_array_equal(images, before)


def test_threads_may_share_a_segmenter(segmenter, images):
    many = np.concatenate([images] * 6)
    expected = [segmenter(image) for image in many]
    with ThreadPoolExecutor(6) as pool:
        concurrent = list(pool.map(segmenter, many))
    for actual, sequential in zip(concurrent, expected, strict=True):
        np.testing.assert_array_equal(actual.mask, sequential.mask)
        np.testing.assert_array_equal(actual.probability, sequential.probability)


def test_compiles_two_programs_for_slices_of_all_sizes(trained, slices):
    """One is for a single slice and one for a batch."""
    segmenter = LungSegmenter(trained)
    compiled = segmenter._predictor._predict
    compiled.clear_cache()
    for shape in ((40, 36), (64, 64), (100, 20)):
        images = np.stack([image_slice.image for image_slice in slices(3, shape=shape)])
        segmenter(images[0])
        segmenter(images)
    assert compiled._cache_size() == 2


def test_refuses_a_folder_that_is_not_a_run_or_a_bundle(tmp_path):
    with pytest.raises(UserError, match="is not a run folder or a bundle: ") as e:
        load(tmp_path)
    assert "a bundle is what `lungseg export` writes" in e.value.rule
    assert "check the path" in e.value.remedy


@pytest.mark.parametrize("path", [3, None, b"run", ["a", "b"]])
def test_refuses_what_is_not_a_path(path):
    with pytest.raises(UserError, match="is not the path of a run or a bundle") as e:
        load(path)
    assert "`lungseg export --run=A --run=B BUNDLE`" in e.value.remedy


def test_stream_refuses_arrays_that_are_not_slices(segmenter, images):
    for array in (np.full((9, 9), np.nan), images, [[1.0]] * 0):
        stream = segmenter.stream([array])
        with pytest.raises(UserError):
            next(stream)


@pytest.mark.parametrize("aspects", [[1.0], [1.0, 0.0], [1.0, np.nan], [1.0, np.inf]])
def test_every_image_of_a_stream_has_an_aspect(segmenter, images, aspects):
    with pytest.raises(UserError, match="image 1 has no aspect"):
        list(segmenter.stream(images[:2], aspects=aspects))


def test_refuses_masked_arrays(segmenter, images):
    masked = np.ma.masked_less(images[0], -1000)
    for given in (masked, [masked], [[masked, masked]]):
        with pytest.raises(UserError, match="masked array"):
            segmenter(given)


class NoArray:
    """As a tensor on a GPU, or an array that has been deleted."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *args, **kwargs):
        raise self.error("it is elsewhere")


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_refuses_what_numpy_cannot_convert(segmenter, error):
    with pytest.raises(UserError, match="NoArray cannot be made an array.*elsewhere"):
        segmenter(NoArray(error))
