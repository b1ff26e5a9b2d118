import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cloc.images import MAX_PIXELS, Placement, decode, pad_colour, place, to_pixel_values
from cloc.models.processing import image_processor

SIZES = [(64, 64), (90, 60), (61, 90), (33, 100), (101, 34), (20, 31), (32, 32)]


@pytest.mark.parametrize("size", SIZES)
def test_boxes_go_to_the_canvas_and_back(size):
    width, height = size
    boxes_xyxy = np.array([[0, 0, width, height], [1.5, 2.25, width - 3, height - 4.5]])
    placement = Placement(width, height)
    on_canvas = placement.to_canvas(boxes_xyxy)
    assert on_canvas.min() >= 0
    assert on_canvas.max() <= 1
    np.testing.assert_allclose(placement.to_pixels(on_canvas), boxes_xyxy, atol=1e-9)


def test_odd_paddings_by_hand():
    wide, tall = Placement(10, 7), Placement(4, 9)
    assert (wide.offset, tall.offset) == ((0, 1), (2, 0))
    np.testing.assert_allclose(wide.to_canvas([[0, 0, 10, 7]]), [[0, 0.1, 1, 0.8]])
    np.testing.assert_allclose(tall.to_canvas([[0, 0, 4, 9]]), [[2 / 9, 0, 6 / 9, 1]])


def test_boxes_are_cut_at_the_border_on_the_way_back():
    assert Placement(10, 6).to_pixels([[0, 0, 1, 1]]).tolist() == [[0, 0, 10, 6]]


def test_placement_refuses_an_empty_image():
    with pytest.raises(ValueError, match="at least 1 x 1 pixels, got 0 x 5"):
        Placement(0, 5)


@pytest.mark.parametrize("size", SIZES)
def test_training_transform_agrees_with_the_exported_processor(size, spine_picture):
    image = spine_picture(*size, seed=3)
    ours = to_pixel_values(place(image, 32))
    theirs = np.asarray(image_processor(32)(image, return_tensors="np")["pixel_values"])[0]
    assert ours.shape == theirs.shape == (3, 32, 32)
    # one step of 8-bit colour is 1 / 255 / std = 0.0146: two bicubic filters may round differently by one or two steps
    assert np.abs(ours - theirs).max() < 2.5 * 0.0146
    assert np.abs(ours - theirs).mean() < 0.006


def test_a_painted_box_lands_where_placement_says():
    image = Image.new("RGB", (90, 60), (0, 0, 0))
    image.paste((255, 255, 255), (30, 15, 60, 45))
    canvas = np.asarray(place(image, 180).convert("L")) > 127
    rows, columns = np.where(canvas)
    found = [columns.min() / 180, rows.min() / 180, (columns.max() + 1) / 180, (rows.max() + 1) / 180]
    np.testing.assert_allclose(found, Placement(90, 60).to_canvas([[30, 15, 60, 45]])[0], atol=1 / 180)


def test_padding_has_the_mean_colour():
    canvas = np.asarray(place(Image.new("RGB", (20, 10), (255, 0, 0)), 20))
    assert tuple(canvas[0, 0]) == pad_colour()
    assert np.abs(to_pixel_values(place(Image.new("RGB", (20, 10)), 20))[:, 0, 0]).max() < 0.0146


def encoded(kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_decode_reads_what_shards_hold(kind):
    image = decode(encoded(kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cut_image_is_refused(kind):
    data = encoded(kind)
    with pytest.raises(ValueError, match="image cannot be decoded"):
        decode(data[: len(data) // 2])


def test_bytes_that_are_no_image_are_refused():
    with pytest.raises(ValueError, match="image cannot be decoded"):
        decode(b"not an image")


def png_that_claims(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_an_image_of_10000_by_10000_pixels_is_no_bomb():
    with pytest.raises(ValueError, match="cannot be decoded") as told:  # only because its data are cut short
        decode(png_that_claims(10_000, 10_000))
    assert "pixels" not in str(told.value)


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 12_000, 50_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(ValueError, match=r"pixels"):
        decode(png_that_claims(side, side))
