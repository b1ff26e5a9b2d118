import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cloc.images import (
    MAX_PIXELS,
    ImageError,
    Placement,
    decode,
    decode_photo,
    displayed_size,
    is_strip,
    pad_colour,
    place,
    read_header,
    read_photo,
    to_pixel_values,
)
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


def saved(image, kind="PNG", **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


RAMP = (np.arange(256)[None] * 257).repeat(16, 0)
DEEP = {
    "16 bits": (RAMP.astype(np.uint16), "PNG"),
    "16 bits, TIFF": (RAMP.astype(np.uint16), "TIFF"),
    "16 bits in 32": (RAMP.astype(np.int32), "TIFF"),
    "8 bits in 32": ((RAMP // 257).astype(np.int32), "TIFF"),
    "32 bits": (RAMP.astype(np.int32) * 30_000, "TIFF"),
    "floats of 0 to 1": ((RAMP / 65_535).astype(np.float32), "TIFF"),
    "floats of 0 to 255": ((RAMP / 257).astype(np.float32), "TIFF"),
    "floats of 0 to 65,535": (RAMP.astype(np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_keeps_its_levels(name):
    values, kind = DEEP[name]
    pixels = np.asarray(decode_photo(saved(Image.fromarray(values), kind)))
    assert pixels.shape == (16, 256, 3)
    wanted = np.arange(256) * 30_000 * 257 >> 24 if name == "32 bits" else np.arange(256)
    assert (pixels[0, :, 0] == wanted).all()
    assert (pixels == pixels[:1, :, :1]).all()


def test_floats_that_are_none_are_black_or_white():
    values = np.array([[0.5, np.nan, np.inf, -np.inf, -3.0, 1.0]], dtype=np.float32)
    assert np.asarray(decode_photo(saved(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == [
        128,
        0,
        255,
        0,
        0,
        255,
    ]


def test_white_shows_through_what_is_transparent():
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, 4:] = (200, 40, 0, 255)
    image = Image.fromarray(rgba)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9, 200, 40, 0])
    palette.paste(1, (4, 0, 8, 8))
    grey = Image.fromarray(np.dstack([rgba[..., 0], rgba[..., 3]]))
    keyed = Image.fromarray(rgba[..., :3])
    for data in (saved(image), saved(image, "WEBP", lossless=True), saved(palette, transparency=0)):
        pixels = np.asarray(decode(data))
        assert [tuple(pixels[0, column].tolist()) for column in (0, 7)] == [(255, 255, 255), (200, 40, 0)]
    assert np.asarray(decode(saved(grey)))[0, [0, 7], 1].tolist() == [255, 200]
    assert np.asarray(decode(saved(keyed, transparency=(0, 0, 0))))[0, [0, 7], 1].tolist() == [255, 40]


def test_opaque_and_ordinary_modes_are_as_pillow_has_them(spine_picture):
    image = spine_picture(40, 30, seed=1)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        data = saved(image.convert(mode))
        assert (np.asarray(decode(data)) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    for mode in ("L", "RGB", "CMYK"):
        data = saved(image.convert(mode), "JPEG")
        assert (np.asarray(decode(data)) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


def test_of_several_pictures_the_first_is_taken(spine_picture):
    first, second = spine_picture(40, 30, seed=1), Image.new("RGB", (40, 30))
    how = {"save_all": True, "append_images": [second]}
    mpo = saved(first, "MPO", **how)
    assert read_header(mpo) == ("jpg", (40, 30))
    assert (np.asarray(decode(mpo)) == np.asarray(Image.open(io.BytesIO(mpo)).convert("RGB"))).all()
    assert np.asarray(decode(mpo)).std() > 10
    for data in (saved(first, "PNG", **how), saved(first, "WEBP", lossless=True, **how)):
        assert (np.asarray(decode(data)) == np.asarray(first)).all()
    assert np.asarray(decode_photo(saved(first, "GIF", **how))).std() > 10


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "EPS", "PCX", "ICO", "JPEG2000", "SGI", "TGA", "IM"])
def test_other_formats_are_for_a_users_own_photo_or_for_nobody(kind, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("another program was started"))
    data = saved(Image.new("RGB", (32, 32), (10, 200, 30)), kind)
    for refuse in (decode, read_header):
        with pytest.raises(ImageError) as told:
            refuse(data)
        assert told.value.reason == ("other_format" if kind in ("BMP", "GIF", "TIFF") else "unreadable")
    if kind in ("BMP", "GIF", "TIFF"):
        assert decode_photo(data).getpixel((3, 3)) == (10, 200, 30)
    else:
        with pytest.raises(ImageError):
            decode_photo(data)


def turned(orientation, size=(40, 30), kind="JPEG"):
    """A photo whose upper left corner is red where a viewer shows it."""
    from PIL import ImageOps

    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = undo
    stored = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(image, "PNG", exif=exif))))
    exif[0x0112] = orientation
    return saved(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_shown_as_viewers_show_it(orientation, kind):
    data = turned(orientation, kind=kind)
    shown = decode_photo(data)
    assert shown.size == (40, 30) == displayed_size(data, ("JPEG", "PNG", "WEBP", "TIFF"))
    assert [shown.getpixel(place)[0] > 200 for place in ((3, 3), (36, 3), (3, 26), (36, 26))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_told_size_decides_the_frame(orientation):
    data = turned(orientation)
    stored = Image.open(io.BytesIO(data)).convert("RGB")
    assert (np.asarray(decode(data)) == np.asarray(stored)).all()
    assert (np.asarray(decode(data, stored.size)) == np.asarray(stored)).all()  # also where both sizes are equal
    if orientation > 4:
        assert decode(data, (40, 30)).getpixel((3, 3))[0] > 200
        assert (np.asarray(decode(data, (40, 30))) == np.asarray(decode_photo(data))).all()
        assert (np.asarray(decode_photo(data, stored.size)) == np.asarray(stored)).all()
    else:
        with pytest.raises(
            ImageError, match=r"expected 30 x 40 pixels, got 40 x 30: the sides are swapped.*EXIF"
        ) as told:
            decode(data, (30, 40))
        assert told.value.reason == "swapped_sides"
    with pytest.raises(ImageError, match="expected 41 x 30 pixels"):
        decode(data, (41, 30))


def test_a_broken_orientation_is_none():
    for value in (0, 9, 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        assert decode_photo(saved(Image.new("RGB", (40, 30)), "JPEG", exif=exif)).size == (40, 30)
    data = saved(Image.new("RGB", (40, 30)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_photo(data).size == (40, 30)


STRIPS = [(30_000, 1), (1, 30_000), (65_535, 1), (1_000_000, 1), (1, 1_000_000), (60_000, 3), (9_000, 700)]


@pytest.mark.parametrize("size", STRIPS)
def test_a_strip_lies_where_its_placement_says_within_the_canvas_memory(size, monkeypatch):
    made = []
    new = Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size, *more: made.append(size) or new(mode, size, *more))
    placed = np.asarray(place(new("RGB", size, (255, 0, 0)), 64))
    assert placed.shape == (64, 64, 3)
    assert max(width * height for width, height in made) <= 64 * 64
    rows, columns = np.nonzero(placed[..., 0] > 250)
    found = [columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64]
    np.testing.assert_allclose(found, Placement(*size).to_canvas([[0, 0, *size]])[0], atol=1 / 64)


@pytest.mark.parametrize("size", [(4096, 1), (640, 480), (5000, 1300), (9_999, 10_000)])
def test_other_shapes_are_padded_first_as_the_exported_processor_pads(size):
    assert Placement(*size).pads_first


def test_a_strip_resized_first_is_nearly_what_padding_first_gives(spine_picture):
    image = spine_picture(600, 100, seed=2)
    first = np.asarray(place(image, 48)).astype(int)
    canvas = Image.new("RGB", (48, 48), pad_colour())
    canvas.paste(image.resize((48, 8), Image.Resampling.BICUBIC), (0, 20))
    assert np.abs(first - np.asarray(canvas)).mean() < 3


def test_strips_are_told_from_panoramas():
    assert all(is_strip(size) for size in STRIPS[:-1])
    assert not any(is_strip(size) for size in ((640, 480), (9_000, 700), (12_000, 8_000), (100, 1), (1, 1)))


def test_what_a_decoder_may_raise_is_one_kind_of_error(monkeypatch, tmp_path):
    from PIL import PngImagePlugin

    data = encoded()
    for error in (MemoryError(), RecursionError(), struct.error("x"), zlib.error("x"), IndexError(), AssertionError()):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
        with pytest.raises(ImageError, match="cannot be decoded") as told:
            decode(data)
        assert told.value.reason == ("too_large" if isinstance(error, MemoryError) else "unreadable")
    with pytest.raises(ImageError, match="is a folder; give the files in it"):
        read_photo(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be read \(No such file"):
        read_photo(tmp_path / "none.jpg")


def test_a_png_with_a_large_text_is_refused_like_any_other_fault():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("a", "b" * (3 << 20), zip=True)
    with pytest.raises(ImageError):
        read_header(saved(Image.new("RGB", (4, 4)), pnginfo=info))


def test_images_are_opened_in_one_place():
    """Any other place would try all of Pillow's formats, of which some start another program."""
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    alone = root / "benchmarks" / "external" / "lmms_eval_task" / "yes_no.py"  # runs where the kit is not installed
    for package in ("cloc", "mllm_bridge", "benchmarks"):
        for file in (root / package).rglob("*.py"):
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "Image.open(" in line]
            if file == root / "cloc" / "images.py" or file == alone:
                assert all("formats=" in line for line in lines)
            else:
                assert not lines, f"{file}: use cloc.images"
