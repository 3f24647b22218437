"""Draw the pictures of the documentation: phantoms, a mask with its doubt, a page.

    python docs/draw_pictures.py         # writes docs/pictures/mask.png and phantoms.jpg
    python docs/draw_pictures.py RUN     # and report.png, which needs Chromium

Masks are those of the weights of the package. The page is that of a run, such as
runs/incp_snapshot-phantom.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import lungseg_jax as ls
from lungseg_jax.data.phantom.dataset import make_phantom
from lungseg_jax.inference import overlay

FOLDER = Path(__file__).resolve().parent / "pictures"
SEED, SHOWN = 5, 24  # a patient with a lung that is partly filled
ON_SHEET = 16
WINDOW_HU = (-1000, 400)
ORANGE, BLUE, RED = (
    tuple(channel / 255 for channel in reversed(color))
    for color in (overlay.OUTLINE, overlay.MISSED, overlay.UNCERTAIN)
)


def mask_with_doubt() -> bytes:
    """Return a PNG of a phantom, its mask with the true outline, and the doubt."""
    image, truth = make_phantom(seed=SEED, index=SHOWN)
    segmentation = ls.load()(image)
    mask, lung = segmentation.mask, truth > 0
    iou = (mask & lung).sum() / (mask | lung).sum()
    doubt = overlay.overlay(image, mask, segmentation.uncertainty, window_hu=WINDOW_HU)
    figure = Figure(figsize=(9, 3.6), dpi=100)
    # Whatever the version of matplotlib measures of the titles.
    place = {"left": 0.005, "right": 0.995, "bottom": 0.03, "top": 0.84, "wspace": 0.03}
    left, middle, right = figure.subplots(1, 3, gridspec_kw=place)
    slice_only = overlay.gray(image, window_hu=WINDOW_HU)
    _show(left, slice_only, "a synthetic\nslice")
    _show(middle, slice_only, f"mask (orange), truth (blue):\nIoU {iou:.3f}")
    middle.contour(mask, [0.5], colors=[ORANGE], linewidths=2.2)
    middle.contour(lung, [0.5], colors=[BLUE], linewidths=0.9)
    expected = float(segmentation.expected_iou)
    _show(
        right, doubt[..., ::-1], f"where it is in doubt:\nexpected IoU {expected:.3f}"
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return _small_png(drawn.getvalue())


def phantom_sheet(columns: int = 8) -> bytes:
    """Return a JPEG of phantoms with the outline of their true masks."""
    tiles = []
    for index in range(ON_SHEET):
        image, truth = make_phantom(seed=SEED, index=index, size=192)
        picture = overlay.gray(image, window_hu=WINDOW_HU)
        picture = np.repeat(picture[..., None], 3, axis=-1)
        tiles.append(overlay.draw_outline(picture, truth > 0))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    return overlay.encode_jpeg(np.vstack([np.hstack(row) for row in rows]))


def report_page(run: Path) -> bytes:
    """Return a PNG of the top of a run's page, as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        sys.exit("error: report.png needs Chromium, which is not installed.")
    page = (run / "report" / "index.html").resolve(strict=True).as_uri()
    words = [browser, "--headless", "--hide-scrollbars", "--window-size=1000,980"]
    if os.geteuid() == 0:  # as in a container
        words.append("--no-sandbox")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        words += [f"--screenshot={picture}", page]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)  # it is talkative
        return _small_png(picture.read_bytes())


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=14)
    axes.set_axis_off()


def _small_png(png: bytes) -> bytes:
    """Return a PNG with 256 colors, a third of the usual size."""
    small = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, kmeans=3).save(small, "png", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "mask.png").write_bytes(mask_with_doubt())
    (FOLDER / "phantoms.jpg").write_bytes(phantom_sheet())
    for run in sys.argv[1:]:
        (FOLDER / "report.png").write_bytes(report_page(Path(run)))
