"""Many processes, kills and full disks: the bytes are those of one process that was left alone, or nothing is there."""

import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import time
from collections import Counter, namedtuple
from pathlib import Path

import pytest
from PIL import Image

from cloc import jobs
from cloc.convert import job
from cloc.convert.drafts import Draft, make_sample
from cloc.convert.pairs import convert_pairs
from cloc.data.collate import decode_sample
from cloc.disk import locked
from cloc.formats.sources import Location
from cloc.structures import DataError, Region

COUNT, SIZE = 47, 4
"""Twelve shards, the last one with fewer samples."""


def jpeg(number=0, size=(30, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, 30, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        (tmp_path / f"in/{number:03d}.jpg").write_bytes(b"broken" if 8 <= number < 12 else jpeg(number))
        (tmp_path / f"in/{number:03d}.txt").write_text(f"photo {number}")
    return tmp_path


def convert(folder, out="out", workers=1):
    return convert_pairs(folder / "in", folder / out, shard_size=SIZE, workers=workers, progress=False)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def undisturbed(folder):
    convert(folder, "whole")
    return content(folder / "whole")


@pytest.mark.multiprocess
def test_any_number_of_processes_gives_the_same_bytes(folder, undisturbed):
    assert len(undisturbed) == 12  # eleven shards and the card: nothing of shard 2 can be used
    assert "000002.tar" not in undisturbed
    card = json.loads(undisturbed["dataset.json"])
    assert (card["counts"]["samples"], card["dropped"]) == (COUNT - 4, {"image_unreadable": 4})
    for workers in (2, 3):
        convert(folder, f"out{workers}", workers)
        assert content(folder / f"out{workers}") == undisturbed


def slowed(folder, workers, wanted):
    """The conversion with a pause at each photo, and for ever once so many shards are there: kills meet it at work."""
    finished = job.finish_drafts

    def slow(drafts, *counted):
        for sample in finished(drafts, *counted):
            time.sleep(0.005)
            while len(reports(folder)) >= wanted:
                time.sleep(0.005)
            yield sample

    job.finish_drafts = slow
    convert(folder, workers=workers)


def reports(folder):
    """Of the shards that are finished, while the set is not."""
    return list((folder / ".out.part").glob("[0-9]*.json"))


@pytest.mark.multiprocess
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_ten_moments_it_ends_with_the_same_bytes(folder, undisturbed, workers, monkeypatch):
    monkeypatch.setattr(jobs, "_WATCH_SECONDS", 0.02)  # how soon the workers of the killed one leave
    for wanted in range(1, 11):
        victim = multiprocessing.get_context("fork").Process(target=slowed, args=(folder, workers, wanted))
        victim.start()
        while victim.is_alive() and len(reports(folder)) < wanted:
            time.sleep(0.002)
        victim.kill()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
    finished = [path.with_suffix(".tar") for path in reports(folder)]
    before = {path.name: path.stat().st_mtime_ns for path in finished if path.exists()}  # one of them has no photo
    convert(folder, workers=workers)
    assert content(folder / "out") == undisturbed
    kept = {name: (folder / "out" / name).stat().st_mtime_ns for name in before}
    assert len(kept) >= 9
    assert kept == before  # whole shards were not written again


def test_two_conversions_do_not_write_one_set(folder, undisturbed, monkeypatch):
    monkeypatch.setattr("cloc.disk.ORPHANS_LAST", 0.0)
    with locked(folder / ".out.part", "unheard"), pytest.raises(ValueError, match="another conversion is writing"):
        convert(folder)
    convert(folder)  # the lock alone is nothing to go on with
    assert content(folder / "out") == undisturbed


def test_what_an_interrupted_conversion_of_something_else_left_is_thrown_away(folder, undisturbed):
    part = folder / ".out.part"
    part.mkdir()
    (part / "made.json").write_text('{"by": "another"}')
    (part / "000000.tar").write_bytes(b"other")
    report = {"file": "000000.tar", "samples": 4, "sha256": "", "counts": {}, "dropped": {}, "bytes": 5}
    (part / "000000.json").write_text(json.dumps(report))
    convert(folder)
    assert content(folder / "out") == undisturbed
    assert not part.exists()


def test_a_cut_shard_in_the_part_is_written_again(folder, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jobs.ShardJob, "finish", lambda self, card: None)
        convert(folder)
    shard = folder / ".out.part/000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    convert(folder)
    assert content(folder / "out") == undisturbed


Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 100_000))
    with pytest.raises(
        ValueError, match=r"out: expected about 0.000\d+ GB of free disk for its shards, found 0.0001 GB"
    ):
        convert(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["in"]


def test_a_disk_that_fills_leaves_whole_shards_and_says_how_to_go_on(folder, undisturbed, monkeypatch):
    write, calls = jobs.write_shard, []

    def full(path, samples):
        calls.append(path)
        if len(calls) == 4:
            Path(f"{path}.part").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, samples)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_shard", full)
        with pytest.raises(ValueError, match=r"the disk is full after 3 shards .*; it takes about .* more. Make room"):
            convert(folder)
    part = folder / ".out.part"
    assert not (folder / "out").exists()
    assert sorted(path.name for path in part.glob("*.tar")) == ["000000.tar", "000001.tar"]  # the third was empty
    assert not list(part.rglob("*.part"))
    convert(folder)
    assert content(folder / "out") == undisturbed


@pytest.mark.multiprocess
def test_a_worker_that_is_ended_from_outside_is_told(folder, monkeypatch):
    def killed(*given):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(job, "finish_drafts", killed)
    with pytest.raises(ValueError, match=r"a worker process was ended from outside .*the same command goes on"):
        convert(folder, workers=2)


def test_nothing_usable_leaves_nothing(folder):
    for path in (folder / "in").glob("*.jpg"):
        path.write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"found none \(47 image_unreadable\)"):
        convert(folder)
    assert [path.name for path in folder.iterdir()] == ["in"]


@pytest.mark.parametrize(("name", "value"), [("shard_size", 0), ("workers", 0)])
def test_bad_numbers_are_refused(folder, name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: expected at least 1, got 0"):
        convert_pairs(folder / "in", folder / "out", progress=False, **{name: value})


def draft(folder, data=None, **more):
    path = folder / "one.jpg"
    if data is not None:
        path.write_bytes(data)
    return Draft("k", Location(str(path)), "one.jpg", **more)


@pytest.mark.parametrize(
    ("frame", "size", "box", "wanted"),
    [
        ("pixels", (40, 20), (1, 2, 30, 50), (1, 2, 30, 20)),
        ("unit", (40, 20), (0.25, 0.5, 0.5, 1.5), (10, 10, 20, 20)),
        ("square", (40, 20), (0.0, 0.25, 0.5, 0.5), (0, 0, 20, 10)),
        ("square", (20, 40), (0.25, 0.0, 0.75, 0.5), (0, 0, 20, 20)),
        ("square", (21, 40), (0.0, 0.0, 1.0, 1.0), (0, 0, 21, 40)),  # as LLaVA: nine columns left, ten right
    ],
)
def test_boxes_of_each_frame(tmp_path, frame, size, box, wanted):
    dropped = Counter()
    made = make_sample(draft(tmp_path, jpeg(0, size), frame=frame, regions=(Region(box, "x"),)), dropped)
    assert [region.box for region in made.regions] == [wanted]


@pytest.mark.parametrize(
    ("frame", "told", "reason"),
    [
        ("pixels", (40, 21), "image_of_other_size"),
        ("unit", (80, 40), None),  # made smaller on the way
        ("unit", (81, 40), None),
        ("unit", (40, 40), "image_of_other_shape"),
    ],
)
def test_the_size_that_is_told(tmp_path, frame, told, reason):
    given = draft(tmp_path, jpeg(0, (40, 20)), frame=frame, size=told)
    if reason is None:
        assert make_sample(given, Counter()).width == 40
    else:
        with pytest.raises(DataError) as error:
            make_sample(given, Counter())
        assert error.value.reason == reason


@pytest.mark.parametrize("frame", ["pixels", "unit"])
@pytest.mark.parametrize(
    ("orientation", "told", "wanted"),
    [
        (6, (40, 20), (40, 20)),  # as it is stored
        (6, (20, 40), (20, 40)),  # as viewers show it
        (3, (40, 20), (40, 20)),
        (1, (20, 40), "image_with_swapped_sides"),
        (6, (21, 20), "image_of_other"),
    ],
)
def test_the_told_size_decides_the_frame_of_a_turned_photo(tmp_path, frame, orientation, told, wanted):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    given = draft(tmp_path, buffer.getvalue(), frame=frame, size=told, regions=(Region((0, 0, 1, 1), "x"),))
    if isinstance(wanted, tuple):
        made = make_sample(given, Counter())
        assert (made.width, made.height) == wanted
        assert decode_sample(made).size == wanted
        assert made.regions[0].box == ((0, 0, *wanted) if frame == "unit" else (0, 0, 1, 1))
        assert made.image == buffer.getvalue()
    else:
        with pytest.raises(DataError) as error:
            make_sample(given, Counter())
        assert error.value.reason.startswith(wanted)


def test_of_a_phones_two_pictures_the_first_is_kept(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 20))])
    made = make_sample(draft(tmp_path, buffer.getvalue(), frame="pixels", size=(40, 20)), Counter())
    assert (made.image_format, decode_sample(made).getpixel((3, 3))[0] > 200) == ("jpg", True)


def png_claiming(width, height):
    """A PNG whose header claims a size, with next to nothing behind it."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_hostile_pairs_are_counted_one_by_one(tmp_path):
    long = " ".join(f"word{i}" for i in range(10_000))
    files = {
        "bomb.png": png_claiming(100_000, 100_000),
        "bomb.txt": b"a hundred thousand pixels each way",
        "large.png": png_claiming(12_000, 12_000),
        "large.txt": b"more than is ever decoded",
        "long.jpg": jpeg(),
        "long.txt": long.encode(),
        "latin.jpg": jpeg(),
        "latin.txt": "Grüße".encode("latin-1"),
    }
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/0.tar", "w") as tar:
        for name, data in (*files.items(), ("../../climb.jpg", jpeg()), ("/root.jpg", jpeg())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    card = convert(tmp_path)
    assert card["dropped"] == {"bad_name": 2, "bad_text": 1, "image_too_large": 2}
    assert card["counts"] == {"samples": 1, "captions": 1, "regions": 0}
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        assert tar.extractfile(tar.getmembers()[2]).read().decode() == long
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    shutil.rmtree(tmp_path / "out")
    cut = tmp_path / "in/0.tar"
    with tarfile.open(cut) as tar:
        end = tar.getmember("latin.txt").offset_data
    cut.write_bytes(cut.read_bytes()[:end])
    card = convert(tmp_path)
    assert (card["dropped"], card["counts"]["samples"]) == ({"image_too_large": 2, "truncated_shard": 1}, 1)
