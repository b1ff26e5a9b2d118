"""Images: good ones in many formats and modes, extreme ones, and ones whose header or content is damaged."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

from PIL import Image

from tools.damage.values import hurt

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "ICO",
    "JPEG2000",
    "TGA",
    "PCX",
    "DDS",
    "EPS",
    "PDF",
    "SGI",
)
MODES = ("RGB", "L", "1", "P", "LA", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "HSV")
EXTREME = ((30_000, 1), (1, 30_000), (65_000, 1), (1, 1), (2, 20_000), (9_000, 9_000), (12_000, 12_000), (1, 400_000))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file closefile\nshowpage\n%%EOF\n"


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def good(random: Random, size: tuple[int, int] = (24, 18)) -> bytes:
    """A small photo as most are."""
    noise = Image.frombytes("RGB", (4, 3), random.randbytes(36)).resize(size, Image.Resampling.BICUBIC)
    return encoded(noise, random.choice(("JPEG", "JPEG", "PNG", "WEBP")))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with its length and its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG that claims a size, whatever its content is."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def other_mode(random: Random) -> bytes:
    """A good image in a format or mode that is rarer."""
    image = Image.frombytes("RGB", (24, 18), random.randbytes(24 * 18 * 3))
    try:
        mode, kind = random.choice(MODES), random.choice(FORMATS)
        image = image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
        return encoded(image, kind)
    except (OSError, ValueError, KeyError):  # that format does not take that mode
        return (
            EPS
            if random.random() < 0.2
            else encoded(image.convert("RGB"), random.choice(("GIF", "BMP", "TIFF", "PPM")))
        )


def extreme(random: Random) -> bytes:
    """A picture of extreme shape or size that is quick to make and small on disk."""
    width, height = random.choice(EXTREME)
    row = b"\0" + b"\x55" * ((width + 7) // 8)
    return png(width, height, 1, 0, row * height)


def lying(random: Random) -> bytes:
    """A header that claims another size, depth or kind than there is."""
    big = random.choice([0, 1, 2**16, 2**20, 2**31 - 1, 2**32 - 1, 100_000])
    return png(
        big,
        random.choice([18, 1, 2**20, 2**31]),
        random.choice([1, 8, 16, 3]),
        random.choice([0, 2, 3, 6, 9]),
        b"\0" * 400,
    )


def stuffed(random: Random) -> bytes:
    """A PNG with large, many or odd chunks, or a JPEG with odd tags, or many frames."""
    way = random.randrange(5)
    rows = (b"\0" + random.randbytes(72)) * 18
    if way == 0:
        return png(24, 18, 8, 2, rows, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 70_000_000)))
    if way == 1:
        return png(24, 18, 8, 2, rows, *[chunk(b"tEXt", b"k%d\0v" % n) for n in range(3000)])
    if way == 2:
        return png(
            24,
            18,
            8,
            2,
            rows,
            chunk(b"iCCP", b"p\0\0" + zlib.compress(random.randbytes(100))),
            chunk(b"eXIf", b"MM\0*"),
        )
    if way == 3:
        exif = Image.Exif()
        exif[0x0112] = random.choice([0, 1, 3, 5, 6, 8, 9, 65535])
        return encoded(
            Image.new("RGB", (24, 18), "red"), "JPEG", exif=exif.tobytes() + random.choice([b"", b"\xff" * 90])
        )
    frames = [Image.new("RGB", (24, 18), (n, 0, 0)) for n in range(40)]
    return encoded(
        frames[0], random.choice(("GIF", "WEBP", "PNG", "TIFF", "MPO")), save_all=True, append_images=frames[1:]
    )


def picture(random: Random) -> bytes:
    """Any of them."""
    way = random.random()
    if way < 0.45:
        return hurt(good(random), random)
    if way < 0.5:
        return good(random)
    make = random.choices((other_mode, extreme, lying, stuffed), (5, 1, 3, 2))[0]
    return make(random)
