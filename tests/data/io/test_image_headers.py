"""Headers of every variant of TIFF and PNG."""

import struct

import cv2
import numpy as np
import pytest

from lungseg_jax.data.io.image_headers import MAX_PAGES, read_header


def encoded(suffix, shape, dtype):
    return cv2.imencode(suffix, np.zeros(shape, dtype))[1].tobytes()


@pytest.mark.parametrize(
    "suffix,shape,dtype,channels,bits",
    [
        (".tif", (5, 7), "uint8", 1, 8),
        (".tif", (5, 7), "int16", 1, 16),
        (".tif", (5, 7), "float32", 1, 32),
        (".tif", (5, 7), "float64", 1, 64),
        (".png", (5, 7), "uint16", 1, 16),
        (".png", (5, 7, 3), "uint8", 3, 8),
        (".png", (5, 7, 4), "uint16", 4, 16),
    ],
)
def test_reads_files_written_by_opencv(suffix, shape, dtype, channels, bits):
    header = read_header(encoded(suffix, shape, dtype))
    assert (header.height, header.width) == shape[:2]
    assert (header.channels, header.bits, header.pages) == (channels, bits, 1)


def test_counts_the_channels_of_a_colour_tiff():
    assert read_header(encoded(".tif", (5, 7, 3), "uint8")).channels == 3


def tiff(*directories, big=False, order="<"):
    """A TIFF without pixels, from directories of (tag, type, count, value)."""
    number = "Q" if big else "I"
    count, entry = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    start = b"II" if order == "<" else b"MM"
    at = 16 if big else 8
    if big:
        content = struct.pack(f"{order}2sHHHQ", start, 43, 8, 0, at)
    else:
        content = struct.pack(f"{order}2sHI", start, 42, at)
    for i, entries in enumerate(directories):
        content += struct.pack(order + count, len(entries))
        for tag, kind, n, value in entries:
            form = {3: "H", 4: "I", 16: "Q"}.get(kind, "B")
            value = struct.pack(order + form, value)
            content += struct.pack(order + entry, tag, kind, n, value)
        size = struct.calcsize("<" + number)
        last = i == len(directories) - 1
        content += struct.pack(order + number, 0 if last else len(content) + size)
    return content


GRAY = [(256, 3, 1, 7), (257, 4, 1, 5), (258, 3, 1, 16)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_reads_both_byte_orders_and_bigtiff(order, big):
    header = read_header(tiff(GRAY, big=big, order=order))
    assert (header.width, header.height, header.bits) == (7, 5, 16)
    assert (header.channels, header.pages, header.pixels) == (1, 1, 35)


def test_counts_the_pixels_of_tiles_larger_than_the_image():
    header = read_header(tiff([*GRAY, (322, 3, 1, 64), (323, 3, 1, 32)]))
    assert header.block == (64, 32) and header.pixels == 2048


@pytest.mark.parametrize("rows,pixels", [(2, 35), (5, 35), (50, 350), (2**32 - 1, 35)])
def test_counts_the_pixels_of_strips_larger_than_the_image(rows, pixels):
    """The largest number means that one strip has exactly all rows."""
    assert read_header(tiff([*GRAY, (278, 4, 1, rows)])).pixels == pixels


@pytest.mark.parametrize("n", [2, 3, MAX_PAGES])
def test_counts_pages(n):
    assert read_header(tiff(*[GRAY] * n)).pages == n


def test_stops_counting_pages_at_a_limit():
    assert read_header(tiff(*[GRAY] * (MAX_PAGES + 7))).pages == MAX_PAGES


def test_a_palette_counts_as_colour():
    header = read_header(tiff([*GRAY, (262, 3, 1, 3)]))
    assert header.channels == 3 and header.has_palette


def test_skips_the_bits_of_several_channels():
    entries = [*GRAY[:2], (258, 3, 3, 100), (277, 3, 1, 3)]
    assert read_header(tiff(entries)).channels == 3


def cyclic():
    content = tiff(GRAY)
    return content[:-4] + struct.pack("<I", 8)


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "neither"),
        (b"II", "truncated"),
        (b"II\x2c\0" + b"\0" * 20, "version 44"),
        (tiff(GRAY)[:-1], "truncated"),
        (tiff(GRAY)[:20], "truncated"),
        (cyclic(), "cycle"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63), "truncated"),
        (tiff([*GRAY, (256, 4, 1, 9)]), "tag 256 is ambiguous"),
        (tiff([(256, 3, 2, 7), *GRAY[1:]]), "tag 256 is ambiguous"),
        (tiff([(256, 1, 1, 7), *GRAY[1:]]), "tag 256 is ambiguous"),
        (tiff(GRAY[1:]), "no pixels"),
        (tiff([]), "no pixels"),
        (encoded(".png", (5, 7), "uint8")[:-1], "truncated"),
        (encoded(".png", (5, 7), "uint8").replace(b"IDAT", b"IDAu"), "checksum"),
        (encoded(".png", (5, 7), "uint8")[:8], "truncated"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xae\x42\x60\x82", "no IHDR"),
    ],
)
def test_refuses_damaged_headers(content, message):
    with pytest.raises(ValueError, match=message):
        read_header(content)
