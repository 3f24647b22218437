"""The page of a segmented volume: slices to scroll, volumes, density, other directions."""

from pathlib import Path

import numpy as np

from lungseg_jax.inference.overlay import LEFT_OUTLINE, OUTLINE
from lungseg_jax.inference.volume_view import DENSITY_HU, SliceView, VolumeView
from lungseg_jax.reporting.templates import css_color, data_uri, render
from lungseg_jax.runtime.files import write_text

WIDTH, HEIGHT = 640, 160  # of the histogram, in its own units


def write_volume_page(path: Path, view: VolumeView) -> None:
    """Write the page as HTML that refers to no other file.

    Raises:
      UserError: the file cannot be written.
    """
    write_text(path, render_volume_page(view))


def render_volume_page(view: VolumeView) -> str:
    """Render the page."""
    right, left = view.voxels
    lung = [s.lung_pixels for s in view.slices]
    return render(
        "volume_page.html",
        title=view.name,
        count=view.count,
        sizes={
            "Both lungs": _size(right + left, view.voxel_ml),
            "Right lung": _size(right, view.voxel_ml),
            "Left lung": _size(left, view.voxel_ml),
        },
        knows_review=any(s.review is not None for s in view.slices),
        to_review=view.to_review,
        # The slice of the slider that is nearest to each slice to review.
        jumps=[
            int(np.argmin([abs(s.k - k) for s in view.slices])) for k in view.to_review
        ],
        slices=[(_label(s), data_uri("image/jpeg", s.picture)) for s in view.slices],
        first=int(np.argmax(lung)) if any(lung) else len(lung) // 2,
        planes={
            "Coronal, from front to back": _uris(view.coronal),
            "Sagittal, from the right to the left": _uris(view.sagittal),
        },
        curves={} if view.density is None else _curves(view.density),
        density_ends=(int(DENSITY_HU[0]), int(DENSITY_HU[-1])),
        width=WIDTH,
        height=HEIGHT,
        colors={"right": css_color(OUTLINE), "left": css_color(LEFT_OUTLINE)},
    )


def _label(slice_: SliceView) -> str:
    """Return the caption of a slice."""
    if not slice_.review:
        return f"slice {slice_.k}"
    reasons = ", ".join(slice_.reasons)
    return f"slice {slice_.k}, to review" + (f": {reasons}" if reasons else "")


def _size(voxels: int, voxel_ml: float | None) -> str:
    return f"{voxels} voxels" if voxel_ml is None else f"{voxels * voxel_ml:.0f} ml"


def _uris(pictures) -> list[str]:
    return [data_uri("image/jpeg", picture) for picture in pictures]


def _curves(density: np.ndarray) -> dict[str, str]:
    """Return the histogram of each side as the points of an SVG line."""
    highest = max(1, density.max())
    x = np.linspace(0, WIDTH, density.shape[1])
    return {
        side: " ".join(
            f"{a:.0f},{HEIGHT * (1 - b / highest):.1f}" for a, b in zip(x, row)
        )
        for side, row in zip(("right", "left"), density, strict=True)
    }
