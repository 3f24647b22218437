"""Images of SimpleITK and nibabel as volumes, and results as images like them."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from lungseg_jax.data.io import nifti_placement
from lungseg_jax.data.io.geometry import Geometry
from lungseg_jax.data.io.volumes import (
    Volume,
    require_gray_volume,
    require_orthogonal,
    require_plausible,
)
from lungseg_jax.runtime.errors import UserError

# `[n h w]` in the standard orientation -> image
ImageMaker = Callable[[np.ndarray], Any]
NAME = "the image"  # for errors
_PASS_A_PART = "pass a part of it, or the array of a slice."


def open_image(image: sitk.Image | nib.spatialimages.SpatialImage) -> Volume:
    """Return an image as a volume; its voxels are not copied.

    Raises:
      UserError: it is not a gray 3D image with orthogonal axes and a geometry, or its
        file cannot be read.
    """
    if isinstance(image, sitk.Image):
        _require_pixels(image)
        channels = image.GetNumberOfComponentsPerPixel()
        require_gray_volume(NAME, image.GetDimension(), channels, remedy=_PASS_A_PART)
        array = sitk.GetArrayViewFromImage(image)
        geometry = Geometry(
            image.GetSize(),
            image.GetSpacing(),
            image.GetOrigin(),
            image.GetDirection(),
        )
        require_orthogonal(geometry, NAME)
        require_plausible(geometry, NAME)
    else:
        _require_affine(image)
        geometry = _geometry(image)
        array = _read_voxels(image).reshape(geometry.size).T

    if array.dtype.kind not in "iufb":
        raise UserError(
            f"{NAME} holds {'colors' if array.dtype.fields else array.dtype}.",
            rule="a volume is gray: integers or floats.",
            remedy="pass one of its channels or parts.",
        )

    def read_plane(axis: int, index: int) -> np.ndarray:
        return np.take(array, index, axis=2 - axis)

    return Volume(NAME, geometry, read_plane)


def image_maker(image: Any, geometry: Geometry) -> ImageMaker:
    """Return a function that makes images like a given one.

    Args:
      image: an image of nibabel; for others, the function makes those of SimpleITK.
      geometry: of the images.
    """

    # Closures could not be pickled.
    if isinstance(image, nib.spatialimages.SpatialImage):
        return functools.partial(_make_nibabel, like=image, geometry=geometry)
    return functools.partial(_make_itk, geometry=geometry)


def _make_nibabel(
    stack: np.ndarray, *, like: nib.spatialimages.SpatialImage, geometry: Geometry
) -> nib.spatialimages.SpatialImage:
    header = like.header.copy()
    header.set_data_dtype(stack.dtype)
    if isinstance(like, nib.AnalyzeImage):  # or its subclass, NIfTI
        # The window of the scan, in which viewers would show the values.
        header["cal_min"] = header["cal_max"] = 0
    return type(like)(_assemble(stack, geometry).T, like.affine, header)


def _make_itk(stack: np.ndarray, *, geometry: Geometry) -> sitk.Image:
    made = sitk.GetImageFromArray(_assemble(stack, geometry))
    made.SetSpacing(geometry.spacing)
    made.SetOrigin(geometry.origin)
    made.SetDirection(geometry.direction)
    return made


def _assemble(stack: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return an array `[z y x]` of slices `[n h w]` in the standard orientation."""
    array = np.empty(geometry.size[::-1], stack.dtype)
    for k, image in enumerate(stack):
        array[geometry.index(k)] = geometry.from_standard(image)
    return array


def _require_affine(image: Any) -> None:
    is_image = isinstance(image, nib.spatialimages.SpatialImage)
    if not is_image or image.affine is None:
        name = type(image).__name__
        raise UserError(
            f"{NAME} has no affine." if is_image else f"{name} is not an image.",
            rule="an image of SimpleITK or nibabel, with its geometry.",
            remedy="pass what nibabel.load or SimpleITK.ReadImage returns, or an array.",
        )


def _require_pixels(image: sitk.Image) -> None:
    """Refuse a label map, whose other attributes end the process."""
    if image.GetPixelIDTypeAsString().startswith("label"):
        raise UserError(
            f"{NAME} is a label map: it has no pixels.",
            rule="a volume is gray: integers or floats.",
            remedy="pass the scan, or what SimpleITK.LabelMapToLabel makes of this.",
        )


def _read_voxels(image: nib.spatialimages.SpatialImage) -> np.ndarray:
    """Return the voxels of an image, which nibabel reads from its file when asked."""
    try:
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        file = image.get_filename()
        raise UserError(
            f"the voxels of {file or NAME} cannot be read: {e}",
            rule="an intact file, as long as the image is in use.",
            remedy="copy the file again from its source.",
        ) from e


def _geometry(image: nib.spatialimages.SpatialImage) -> Geometry:
    if isinstance(image, nib.Nifti1Pair):  # placed as its file is, or would be
        saved = type(image)(image.dataobj, image.affine, image.header)
        return nifti_placement.read_geometry(saved.header, NAME)
    require_gray_volume(NAME, len(image.shape), remedy=_PASS_A_PART)
    return nifti_placement.affine_geometry(image.shape, image.affine, NAME)
