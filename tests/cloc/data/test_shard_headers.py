"""Headers and photo sizes by the quick way, beside the plain one."""

import io
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from cloc.data.shards.write import make_header, write_shard
from cloc.formats import photos as photo_files
from cloc.formats.photos import read_photo_header
from cloc.structures import DataError, Sample


@pytest.mark.parametrize(
    "name", ["000000000001.jpg", "a" * 96 + ".jpg", "a" * 97 + ".jpg", "zähne.json", "a/b.txt", "x" * 300]
)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 150_000, 8**11 - 1, 8**11])
def test_a_header_is_tarfiles_own(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    assert make_header(name, size) == info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_a_shard_is_what_tarfile_writes(tmp_path, count):
    samples = [Sample(f"{i:09d}", bytes([i]) * (700 * i), "jpg", 4, 3, "ä" * i, ()) for i in range(count)]
    write_shard(tmp_path / "ours.tar", samples)
    with (
        tarfile.open(tmp_path / "ours.tar") as ours,
        tarfile.open(tmp_path / "theirs.tar", "w:", format=tarfile.PAX_FORMAT) as theirs,
    ):
        for member in ours:
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = member.size, 0o644
            theirs.addfile(info, ours.extractfile(member))
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def encoded(mode="RGB", **how):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    shape = (48, 64) if mode == "L" else (48, 64, len(mode))
    Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8), mode).save(buffer, "JPEG", **how)
    return buffer.getvalue()


HOWS = [
    {}, {"progressive": True}, {"optimize": True, "quality": 30}, {"mode": "L"}, {"mode": "CMYK"},
    {"comment": b"x" * 900},
    {"exif": b"Exif\0\0" + bytes(90)}, {"restart_marker_blocks": 2}, {"icc_profile": b"\xff\xd8\xff\xc0" * 99},
]  # fmt: skip


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_the_size_of_a_jpeg_is_pillows(how):
    data = encoded(**how)
    assert photo_files._read_jpeg_size(data) == (64, 48)
    assert read_photo_header(data, "x.jpg") == photo_files._open(data, "x.jpg") == ("jpg", (64, 48))


def test_what_is_no_usual_jpeg_goes_to_pillow(monkeypatch):
    data = encoded()
    mpo = data[:2] + b"\xff\xe2\x00\x08MPF\0xx" + data[2:]
    frame = data.index(b"\xff\xc0")
    twelve_bits = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    two_channels = data[: frame + 9] + b"\x02" + data[frame + 10 :]
    no_height = data[: frame + 5] + b"\0\0" + data[frame + 7 :]
    twice = data[:frame] + data[frame : frame + 19] + data[frame:]
    png = io.BytesIO()
    Image.new("RGB", (3, 2)).save(png, "PNG")
    for other in (mpo, twelve_bits, two_channels, no_height, twice, png.getvalue(), b"", b"\xff\xd8\xff", data[:frame]):
        assert photo_files._read_jpeg_size(other) is None
    assert read_photo_header(png.getvalue(), "x.png") == ("png", (3, 2))


@pytest.mark.parametrize("end", range(0, 700, 23))
def test_a_jpeg_cut_in_its_header_is_told_as_before(end):
    data = encoded()[:end]
    scan = encoded().index(b"\xff\xda")
    if end >= scan + 4:
        assert read_photo_header(data, "x.jpg") == ("jpg", (64, 48))
        return
    with pytest.raises(DataError) as told:
        read_photo_header(data, "x.jpg")
    assert told.value.reason == "image_unreadable"


def test_a_huge_jpeg_is_refused_by_its_header():
    data = bytearray(encoded())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 65_000, 65_000)
    with pytest.raises(DataError, match=r"x\.jpg: it claims 65000 x 65000 pixels") as told:
        read_photo_header(bytes(data), "x.jpg")
    assert told.value.reason == "image_too_large"
