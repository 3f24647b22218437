"""The Python interface: arrays in, masks and their certainty out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lungseg_jax.inference.ensemble.trained import TunedSettings
from lungseg_jax.inference.postprocessing import postprocess
from lungseg_jax.inference.segmenter import LungSegmenter, load
from lungseg_jax.metrics.calibration import apply_temperature
from lungseg_jax.metrics.uncertainty import entropy, expected_iou, mutual_information
from lungseg_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def segmenter(trained):
    return LungSegmenter(trained)


@pytest.fixture
def images(slices):
    return np.stack([one.image for one in slices(5)])


def test_one_slice_is_decided_as_the_parts_say(segmenter, trained, images):
    image = images[0]
    found = segmenter(image)
    (members,) = trained.predictor().probabilities([image])
    mean = members.mean(axis=0)
    calibrated = apply_temperature(mean, 1.5)
    np.testing.assert_allclose(found.probability, calibrated, atol=1e-6)
    mask = postprocess(mean > 0.5, "fill_holes")
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_allclose(found.uncertainty, entropy(calibrated), atol=1e-5)
    np.testing.assert_allclose(
        found.mutual_information, mutual_information(members), atol=1e-5
    )
    assert found.expected_iou == pytest.approx(expected_iou(calibrated, mask), abs=1e-5)
    assert found.review == (found.expected_iou < 0.6)
    assert found.mask.shape == image.shape and found.mask.dtype == bool
    assert found.probability.dtype == found.uncertainty.dtype == np.float32


def test_several_slices_are_each_alone(segmenter, images):
    together = segmenter(images)
    assert together.mask.shape == images.shape
    assert together.expected_iou.shape == together.review.shape == (5,)
    for i, image in enumerate(images):
        alone = segmenter(image)
        np.testing.assert_array_equal(together.mask[i], alone.mask)
        np.testing.assert_allclose(
            together.uncertainty[i], alone.uncertainty, atol=1e-5
        )
        assert together.review[i] == alone.review


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_the_type_of_the_array_does_not_matter(segmenter, images, dtype):
    expected = segmenter(images[0])
    found = segmenter(images[0].astype(dtype))
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize("shape", [(7, 90), (200, 33), (32, 32), (1, 1)])
def test_slices_of_any_size(segmenter, shape):
    image = np.random.default_rng(0).integers(-1000, 0, shape)
    assert segmenter(image).mask.shape == shape


def test_members_have_decisions_of_their_own(trained):
    assert trained.settings() == TunedSettings(1.5, "fill_holes", 0.6, "all")
    assert trained.subset(["30"]).settings() == TunedSettings(
        2.0, "fill_holes", 0.5, "last"
    )
    # A set that nobody decided on is taken for all of them, and says so.
    assert trained.subset(["10", "30"]).settings() == TunedSettings(
        1.5, "fill_holes", 0.6, ""
    )


def test_without_tuning_nothing_is_calibrated_or_flagged(trained, images):
    import dataclasses

    plain = LungSegmenter(dataclasses.replace(trained, tuning={}))
    found = plain(images[:2])
    assert found.review is None and plain.settings == TunedSettings()
    (members,) = trained.predictor().probabilities([images[0]])
    np.testing.assert_allclose(found.probability[0], members.mean(axis=0), atol=1e-6)


def test_a_clean_up_can_be_named(trained, images):
    named = LungSegmenter(trained, postprocessing="two_largest")
    assert named.settings.postprocessing == "two_largest"
    assert named.settings.temperature == 1.5
    with pytest.raises(UserError, match="unknown postprocessing 'polish'"):
        LungSegmenter(trained, postprocessing="polish")


def test_flips_are_another_answer(trained, segmenter, images):
    flipped = LungSegmenter(trained, flips=True)(images[0])
    plain = segmenter(images[0])
    gap = np.abs(flipped.probability - plain.probability)
    assert gap.max() > 1e-4
    # Averaged over mirror images, it does not matter which of them it is shown.
    mirrored = LungSegmenter(trained, flips=True)(images[0][::-1])
    np.testing.assert_allclose(
        mirrored.probability[::-1], flipped.probability, atol=1e-5
    )


@pytest.mark.parametrize(
    "array,says",
    [
        (np.zeros((2, 2, 2, 2)), "no image"),
        (np.zeros((0, 4)), "no image"),
        (np.array([["a"]]), "no image"),
        (np.array([[True]]), "no image"),
        (np.array([[np.nan, -500.0]]), "NaN"),
        (np.arange(256).reshape(16, 16), "gray values from 0 to 255"),
        (np.linspace(0, 1, 16).reshape(4, 4), "values from 0 to 1"),
        (np.array([[0, 3000]], np.uint16), "before the offset is added"),
    ],
)
def test_what_is_no_ct_slice_is_refused(segmenter, array, says):
    with pytest.raises(UserError, match=says):
        segmenter(array)


def test_the_array_is_not_changed(segmenter, images):
    before = images.copy()
    segmenter(images)
    np.testing.assert_array_equal(images, before)


def test_threads_may_share_one(segmenter, images):
    many = np.concatenate([images] * 6)
    expected = [segmenter(image) for image in many]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(segmenter, many))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.probability, other.probability)


def test_two_programs_whatever_the_sizes(trained, slices):
    """A single slice and a batch: no size compiles another."""
    segmenter = LungSegmenter(trained)
    compiled = segmenter._predictor._predict
    compiled.clear_cache()
    for shape in ((40, 36), (64, 64), (100, 20)):
        images = np.stack([one.image for one in slices(3, shape=shape)])
        segmenter(images[0])
        segmenter(images)
    assert compiled._cache_size() == 2


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        load(tmp_path)


def test_a_stream_is_checked_slice_by_slice(segmenter, images):
    for wrong in (np.full((9, 9), np.nan), images, [[1.0]] * 0):
        stream = segmenter.stream([wrong])
        with pytest.raises(UserError):
            next(stream)


def test_a_mask_of_numpy_is_not_passed_over(segmenter, images):
    with pytest.raises(UserError, match="masked array"):
        segmenter(np.ma.masked_less(images[0], -1000))
