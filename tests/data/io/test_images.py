"""Reading image files exactly, and refusing files that would be read wrong."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from lungseg_jax.data.io import images
from lungseg_jax.data.io.images import read_image, read_mask, write_image
from lungseg_jax.data.lung_ct.builder import LungCT
from lungseg_jax.runtime.errors import UserError

# Values of a CT slice [2 3]: padding, air, lung, water, soft tissue, bone.
HU = np.array([[-2600, -1000, -700], [0, 40, 1500]], np.int16)
MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
LZW, DEFLATE = 5, 8  # values of the TIFF tag Compression


def noise(shape=(64, 48), dtype="int16"):
    """Incompressible pixels, some of which are lost from a truncated file."""
    values = np.random.default_rng(0).integers(0, 2**15, shape)
    return values.astype(dtype)


def write_tiff(path, array, compression):
    settings = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    assert cv2.imwrite(str(path), array, settings)
    return path


def write_png(path, array):
    assert cv2.imwrite(str(path), array)
    return path


def test_reads_signed_16_bit_values_exactly(tmp_path):
    write_image(tmp_path / "slice.tif", HU)
    image = read_image(tmp_path / "slice.tif")
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image, HU)


@pytest.mark.parametrize("mode", [cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE])
def test_other_modes_of_opencv_destroy_the_values(tmp_path, mode):
    """`cv2.imread(path, 1)` and `(path, 0)` do not even keep the order of the values."""
    path = tmp_path / "slice.tif"
    write_image(path, HU)
    pixels = cv2.imread(str(path), mode)
    gray = pixels[..., 0] if pixels.ndim == 3 else pixels
    assert gray.dtype == np.uint8
    # The high bytes: -2600 is 0xF5D8, -1000 0xFC18, -700 0xFD44, 1500 0x05DC.
    assert gray.tolist() == [[0xF5, 0xFC, 0xFD], [0x00, 0x00, 0x05]]
    assert read_image(path).tolist() == HU.tolist()


@pytest.mark.parametrize("compression", [1, LZW, DEFLATE])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_reads_tiff_exactly(tmp_path, compression, dtype):
    array = noise(dtype="int32").astype(dtype)
    image = read_image(write_tiff(tmp_path / "a.TIFF", array, compression))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, array)


def test_reads_float_tiff_exactly(tmp_path):
    array = np.array([[-1000.25, 0.5], [1e-3, 3e4]], np.float32)
    write_image(tmp_path / "a.tif", array)
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_reads_png_exactly(tmp_path, dtype):
    array = np.array([[0, 1, 127], [128, 254, 255]], np.uint16)
    array = (array * (257 if dtype == "uint16" else 1)).astype(dtype)  # 257*255 = 65535
    image = read_image(write_png(tmp_path / "a.PNG", array))
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, array)


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", [1, LZW])
def test_masks_of_1_and_of_255_are_equal(tmp_path, high, dtype, compression):
    path = write_tiff(tmp_path / "m.tif", (MASK * high).astype(dtype), compression)
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, MASK)


def test_reads_a_png_mask(tmp_path):
    mask = read_mask(write_png(tmp_path / "m.png", MASK * np.uint8(255)))
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_reads_masks_of_a_single_value(tmp_path, value):
    mask = read_mask(write_png(tmp_path / "m.png", np.full((3, 4), value, np.uint8)))
    np.testing.assert_array_equal(mask, np.full((3, 4), int(value > 0)))


@pytest.mark.parametrize(
    "values,shown",
    [
        ([0, 1, 2], "0, 1, 2"),  # labels
        ([0, 1, 255], "0, 1, 255"),
        ([0, 7], "0, 7"),
        ([200, 255], "200, 255"),
        ([0, 127, 255], "0, 127, 255"),  # a resampled mask
        (range(0, 250, 10), "0, 10, 20, 30, 40, 50, ..."),
    ],
)
def test_refuses_masks_with_other_values(tmp_path, values, shown):
    path = write_png(tmp_path / "m.png", np.array([values], np.uint8))
    with pytest.raises(UserError) as e:
        read_mask(path)
    assert f"{path} has the values {shown}." in e.value.what
    assert "{0, 255} or {0, 1}" in e.value.rule


@pytest.mark.parametrize(
    "values,dtype", [([-1, 0], "int16"), ([0.0, 0.5], "float32"), ([-1, 0, 1], "int16")]
)
def test_refuses_masks_with_negative_or_fractional_values(tmp_path, values, dtype):
    path = write_tiff(tmp_path / "m.tif", np.array([values], dtype), 1)
    with pytest.raises(UserError, match="has the values"):
        read_mask(path)


def intact(folder, kind):
    """Return the bytes of an intact file of incompressible pixels, and its suffix."""
    if kind == "png":
        return write_png(
            folder / "intact.png", noise(dtype="uint16")
        ).read_bytes(), kind
    compression = {"raw tif": 1, "lzw tif": LZW}[kind]
    return write_tiff(folder / "intact.tif", noise(), compression).read_bytes(), "tif"


@pytest.mark.parametrize("kind", ["raw tif", "lzw tif", "png"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_refuses_truncated_files(tmp_path, kind, kept):
    content, suffix = intact(tmp_path, kind)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError) as e:
        read_image(path)
    assert str(path) in e.value.what and "damaged or truncated" in e.value.what
    with pytest.raises(UserError, match="damaged or truncated"):
        read_mask(path)


def one_strip_tiff(array):
    """A TIFF like those of the Kaggle set: header, directory, and a strip to the end."""
    tags = [
        (256, 4, array.shape[1]),  # width
        (257, 4, array.shape[0]),  # height
        (258, 3, 16),  # bits
        (259, 3, 1),  # uncompressed
        (262, 3, 1),  # black is zero
        (273, 4, 8 + 2 + 12 * 10 + 4),  # where the strip begins
        (277, 3, 1),  # one channel
        (278, 4, array.shape[0]),  # rows in a strip
        (279, 4, array.nbytes),
        (339, 3, 2),  # signed
    ]
    directory = b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    start = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return start + directory + struct.pack("<I", 0) + array.astype("<i2").tobytes()


@pytest.mark.parametrize("code", [34925, 50000])  # LZMA, Zstandard
def test_a_compression_that_is_not_supported_is_no_damage(tmp_path, code):
    path = write_tiff(tmp_path / "a.tif", noise(), 1)
    none, other = (struct.pack("<HHII", 259, 3, 1, value) for value in (1, code))
    content = path.read_bytes()
    assert none in content
    path.write_bytes(content.replace(none, other))
    with pytest.raises(UserError, match=rf"compression .* not supported \({code}\)"):
        read_image(path)


@pytest.mark.parametrize("missing", [0, 1, 2, 100, 6000])
def test_refuses_a_strip_truncated_at_its_end(tmp_path, missing):
    """Only pixels are lost: the directory precedes them."""
    array = noise()
    content, path = one_strip_tiff(array), tmp_path / "a.tif"
    path.write_bytes(content[: len(content) - missing])
    if missing:
        with pytest.raises(UserError, match="damaged or truncated"):
            read_image(path)
    else:
        np.testing.assert_array_equal(read_image(path), array)


@pytest.mark.parametrize("missing", [9, 12, 13, 16, 17])
def test_refuses_a_png_truncated_at_its_end(tmp_path, missing):
    """The end chunk has 12 bytes; without it, pixels may also be missing."""
    content, _ = intact(tmp_path, "png")
    path = tmp_path / "cut.png"
    path.write_bytes(content[:-missing])
    with pytest.raises(UserError, match="damaged or truncated"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"version https://git-lfs.github.com/spec/v1\n", b"<html>" * 99],
    ids=["empty", "one byte", "lfs pointer", "html"],
)
def test_refuses_files_that_are_not_images(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as e:
        read_image(path)
    assert str(path) in e.value.what and f"({len(content)} bytes)" in e.value.what


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("channels", [3, 4])
def test_refuses_colour(tmp_path, suffix, channels):
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), np.zeros((8, 8, channels), np.uint8))
    for read in (read_image, read_mask):
        with pytest.raises(UserError) as e:
            read(path)
        assert e.value.what == f"{path} has {channels} channels."


def test_refuses_several_pages(tmp_path):
    path = tmp_path / "stack.tif"
    assert cv2.imwritemulti(str(path), [noise(), noise(), noise()])
    with pytest.raises(UserError) as e:
        read_image(path)
    assert e.value.what == f"{path} has 3 pages."


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_pixels_that_are_not_finite(tmp_path, bad):
    array = np.zeros((5, 5), np.float32)
    array[3, 2] = bad
    write_image(tmp_path / "a.tif", array)
    with pytest.raises(UserError) as e:
        read_image(tmp_path / "a.tif")
    assert e.value.what == f"{tmp_path / 'a.tif'} has NaN or infinite pixels."


@pytest.mark.parametrize("name", ["a.jpg", "a.dcm", "a.nii.gz", "a"])
def test_refuses_unknown_suffixes(tmp_path, name):
    (tmp_path / name).write_bytes(intact(tmp_path, "png")[0])
    with pytest.raises(UserError) as e:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in e.value.what
    assert e.value.rule == "one of .tif, .tiff, .png."


def test_refuses_missing_files_and_folders(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "none.png", tmp_path / "folder.png"):
        with pytest.raises(UserError) as e:
            read_image(path)
        assert f"{path} cannot be read" in e.value.what


def test_reads_the_real_images(real_data):
    for path in sorted((real_data / "2d_images").iterdir())[::12]:
        image = read_image(path)
        assert image.dtype == np.int16 and image.shape == (512, 512), path
        assert -3000 < image.min() < -900 and len(np.unique(image)) > 500, path


def test_reads_the_real_masks(real_data):
    masks = [read_mask(path) for path in sorted((real_data / "2d_masks").iterdir())]
    assert {(m.dtype.name, m.shape) for m in masks} == {("uint8", (512, 512))}
    assert all(m.max() == 1 for m in masks)
    assert 0.2 < np.mean([m.mean() for m in masks]) < 0.27


# --- sizes that a file declares, checked before decoding ---


def refuse_to_decode(*args):
    raise AssertionError("decoded")


def sized_tiff(width, height, *tags):
    """A TIFF that declares any size and has a hundred bytes of pixels."""
    every = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, 100),
        *tags,
    ]
    directory = b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in every)
    start = struct.pack("<2sHI100xH", b"II", 42, 108, len(every))
    return start + directory + struct.pack("<I", 0)


def chunk(kind, data):
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def sized_png(width, height, bits=8, colour=0, *more):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", head), *more, chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "width,height", [(8193, 8192), (2**26 + 1, 1), (1, 2**31), (2**31 - 1, 2**31 - 1)]
)
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_refuses_bombs_before_decoding_them(tmp_path, monkeypatch, kind, width, height):
    make = {"tif": sized_tiff, "png": sized_png}[kind]
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(make(width, height))
    monkeypatch.setattr(cv2, "imdecode", refuse_to_decode)
    for read in (read_image, read_mask):
        with pytest.raises(UserError) as e:
            read(path)
        assert e.value.what == f"{path} has {width} x {height} pixels."
        assert "67108864 pixels" in e.value.rule and e.value.remedy


def test_accepts_the_limit_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48)
    write_tiff(tmp_path / "a.tif", noise(), 1)
    assert read_image(tmp_path / "a.tif").shape == (64, 48)
    write_tiff(tmp_path / "b.tif", noise((64, 49)), 1)
    with pytest.raises(UserError, match="49 x 64 pixels"):
        read_image(tmp_path / "b.tif")


def test_refuses_tiles_larger_than_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(sized_tiff(10, 10, (322, 4, 2**20), (323, 4, 2**10)))
    monkeypatch.setattr(cv2, "imdecode", refuse_to_decode)
    with pytest.raises(UserError, match="blocks of 1048576 x 1024 pixels"):
        read_image(path)


def test_refuses_strips_larger_than_the_limit(tmp_path, monkeypatch):
    """An image of 10 x 10 in a strip that declares 2**24 rows."""
    path = tmp_path / "a.tif"
    rows = struct.pack("<HHII", 278, 4, 1, 10), struct.pack("<HHII", 278, 4, 1, 2**24)
    path.write_bytes(sized_tiff(10, 10).replace(*rows))
    monkeypatch.setattr(cv2, "imdecode", refuse_to_decode)
    with pytest.raises(UserError, match="blocks of 10 x 16777216 pixels"):
        read_image(path)


def test_counts_pages_without_decoding_them(tmp_path, monkeypatch):
    """Directories that all point at the same pixels: 100,000 pages in a megabyte."""
    page = sized_tiff(10, 10)
    head, directory = page[:108], page[108:-4]
    pages = [
        directory + struct.pack("<I", 108 + (i + 1) * (len(directory) + 4))
        for i in range(100_000)
    ]
    path = tmp_path / "a.tif"
    path.write_bytes(head + b"".join(pages) + directory + struct.pack("<I", 0))
    monkeypatch.setattr(cv2, "imdecode", refuse_to_decode)
    with pytest.raises(UserError, match="1000 or more pages"):
        read_image(path)


def test_names_the_palette_of_a_png(tmp_path):
    (tmp_path / "a.png").write_bytes(sized_png(8, 8, 8, 3))
    with pytest.raises(UserError, match="a.png has a palette."):
        read_mask(tmp_path / "a.png")


def test_refuses_an_animated_png(tmp_path):
    path = tmp_path / "a.png"
    frames = chunk(b"acTL", struct.pack(">II", 3, 0))
    path.write_bytes(sized_png(8, 8, 8, 0, frames))
    with pytest.raises(UserError, match="has 3 pages"):
        read_image(path)


def test_refuses_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "a.tif"
    with path.open("wb") as f:
        f.truncate(images.MAX_FILE_BYTES + 1)  # sparse: takes no space on the disk
    with pytest.raises(UserError, match=f"has {images.MAX_FILE_BYTES + 1} bytes"):
        read_image(path)


def test_refuses_a_pipe_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(UserError, match="not a regular file"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind,bits", [("png", 2), ("png", 4), ("tif", 4), ("tif", 12)])
def test_refuses_values_that_opencv_multiplies(kind, bits, tmp_path):
    """By 85, 17 and 16."""
    content = sized_png(4, 4, bits)
    if kind == "tif":
        content = sized_tiff(4, 4).replace(
            struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, bits)
        )
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=f"has {bits} bits per pixel"):
            read(path)


def test_refuses_inverted_values(tmp_path):
    """OpenCV inverts those of 8 bits, and no others."""
    path = tmp_path / "a.tif"
    content = sized_tiff(4, 4).replace(
        struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0)
    )
    path.write_bytes(content)
    assert np.all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == 255)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match="WhiteIsZero"):
            read(path)


OPENCV_5 = pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 cannot write it")


@pytest.mark.parametrize("dtype", ["int8", pytest.param("uint32", marks=OPENCV_5)])
def test_refuses_other_dtypes_in_images_but_not_in_masks(tmp_path, dtype):
    path = write_tiff(tmp_path / "a.tif", MASK.astype(dtype), 1)
    with pytest.raises(UserError) as e:
        read_image(path)
    assert e.value.what == f"{path} holds {dtype} pixels."
    np.testing.assert_array_equal(read_mask(path), MASK)


def test_every_readable_dtype_can_be_prepared():
    variants = {f"folder_{dtype}" for dtype in images.DTYPES}
    assert variants == {n for n in LungCT.builder_configs if n.startswith("folder_")}


@pytest.mark.parametrize("at", [40, 60, 500, 2000])
def test_refuses_a_png_with_a_flipped_bit(tmp_path, at):
    content = bytearray(intact(tmp_path, "png")[0])
    content[at] ^= 16
    path = tmp_path / "flipped.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or truncated"):
        read_image(path)


def test_refuses_a_jpeg_named_png(tmp_path):
    done, content = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match="damaged or truncated"):
        read_image(tmp_path / "a.png")
