"""One bad photo or entry never ends a conversion, and what is finished is never deleted."""

import io
import json
import pickle
import resource
import struct
import tarfile
import zlib
from collections import Counter

import pytest
from PIL import Image

from cloc.convert import job
from cloc.convert.grit import convert_grit
from cloc.convert.pairs import convert_pairs
from cloc.data.shards import ShardSet, write_shard
from cloc.formats.json_stream import stream_json
from cloc.formats.lvis import find_lvis_photo_names
from cloc.formats.plain_pickle import load_plain_pickle
from cloc.formats.sources import Photos
from cloc.structures import Region, Sample


def encoded(form="JPEG", colour="red", size=(30, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_large_text():
    """A PNG whose compressed text grows beyond what Pillow takes: it raises ValueError."""
    whole = encoded("PNG")
    return whole[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000))) + whole[33:]


def test_a_photo_that_pillow_chokes_on_is_counted(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / f"in/{number:02d}.png").write_bytes(with_large_text() if number == 7 else encoded("PNG"))
        (tmp_path / f"in/{number:02d}.txt").write_text("a photo")
    card = convert_pairs(tmp_path / "in", tmp_path / "out", shard_size=2, workers=1, progress=False)
    assert (card["counts"]["samples"], card["dropped"]) in [(11, {"image_unreadable": 1}), (12, {})]


@pytest.mark.parametrize("extras", [{"score": float("inf")}, {"name": "\ud800"}, {"when": object()}])
def test_a_sample_that_no_json_can_hold_is_counted(tmp_path, extras):
    good = Sample("a", encoded(), "jpg", 30, 20, "", (Region((1, 1, 5, 5), "cup"),), {})
    bad = Sample("b", encoded(), "jpg", 30, 20, "", (Region((1, 1, 5, 5), "cup"),), extras)
    entry = write_shard(tmp_path / "0.tar", [good, bad])
    assert (entry.samples, dict(entry.dropped)) == (1, {"bad_sample": 1, "region_of_dropped_image": 1})


def test_a_mistake_found_late_leaves_the_finished_shards_and_a_restart_goes_on(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / f"in/{number}.jpg").write_bytes(encoded(colour=(number, 0, 0)))
        (tmp_path / f"in/{number}.txt").write_text("a photo")

    def convert(out):
        return convert_pairs(tmp_path / "in", tmp_path / out, shard_size=2, workers=1, progress=False)

    whole, write = convert("whole"), job.write_one

    def stumbling(place, number, drafts):
        if number == 2:
            raise ValueError("the third shard's mistake")
        return write(place, number, drafts)

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_one", stumbling)
        with pytest.raises(ValueError, match="the third shard's mistake"):
            convert("out")
    kept = sorted((tmp_path / ".out.part").glob("*.tar"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert [path.name for path in kept] == ["000000.tar", "000001.tar"]
    assert convert("out")["shards"] == whole["shards"]
    assert [(tmp_path / "out" / path.name).stat().st_mtime_ns for path in kept] == times


def deep(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("chunk_size", [1, 7, 1 << 20])
@pytest.mark.parametrize("bad", [deep(5000), f'{{"a": "]\\"[", "b": {deep(3000)}}}', deep(101), '{"name": "\\ud800"}'])
def test_an_entry_beyond_the_bounds_is_passed_over(tmp_path, monkeypatch, bad, chunk_size):
    if chunk_size == 1 and len(bad) > 1000:
        chunk_size = 64
    monkeypatch.setattr("cloc.formats.json_stream._CHUNK", chunk_size)
    file = tmp_path / "a.json"
    file.write_text(f'{{"a": [1, {bad}, {{"b": [2]}}], "c": {{"x": {bad}}}, "d": {"9" * 5000}}}')
    dropped = Counter()
    assert list(stream_json(file, "a file", dropped)) == [("a", 1), ("a", {"b": [2]}), ("d", float("inf"))]
    assert dropped == {"bad_entry": 2}
    with pytest.raises(ValueError, match="an entry is nested deeper than 100 levels, or holds half"):
        list(stream_json(file, "a file"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # 12 bytes and fewer that asked for gigabytes
        b"]p2147483647\n.",
        b"]p99999999999999999999\n.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.",
        b"\x80\x05\x96\xff\xff\xff\xff\x01\x00\x00\x00.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x04\x8f.",  # a set
        b"\x80\x02]\x82\x01.",  # a registered class
    ],
)
def test_a_pickle_takes_no_more_memory_than_its_bytes_ask(tmp_path, data):
    (tmp_path / "refs(unc).p").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"refs\(unc\).p: expected refs, a pickle of plain lists"):
        load_plain_pickle(tmp_path / "refs(unc).p", "refs")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol_are_read(tmp_path, protocol):
    shared = {
        "sent": "left cup",
        "ids": (1, 2, 3, 4),
        "big": 1 << 70,
        "x": 1.5,
        "no": None,
        "yes": True,
        "ü": ["\u20ac"],
    }
    value = [shared, shared, [], {}, (), "a" * 300, list(range(300)), -5]
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(tmp_path / "a.p", "a list") == value


COCO = "http://images.cocodataset.org/val2017/000000000391.jpg"


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"coco_url": COCO}, ("val2017/000000000391.jpg", "000000000391.jpg")),
        ({"file_name": "COCO_val2014_000000000391.jpg"}, ("000000000391.jpg", "COCO_val2014_000000000391.jpg")),
        ({"file_name": "train/v1/frame0391.jpg"}, ("train/v1/frame0391.jpg",)),
        ({"file_name": "train/v1/frame0391.jpg", "coco_url": ""}, ("train/v1/frame0391.jpg",)),
        ({"file_name": "1.jpg", "coco_url": None}, ("1.jpg",)),
        ({"file_name": "sub\\1.jpg", "coco_url": "http://my.org/x/000000000391.jpg"}, ("sub/1.jpg",)),
        ({"file_name": "mine.jpg", "coco_url": COCO}, ("mine.jpg",)),
        ({"coco_url": "https://my.org/a%20b/1.jpg?x=1"}, ("a b/1.jpg",)),
        ({"coco_url": ""}, ()),
        ({"coco_url": 7, "file_name": ["a"]}, ()),
    ],
)  # fmt: skip
def test_names_of_lvis_are_cocos_only_where_they_say_so(entry, names):
    assert find_lvis_photo_names(entry) == names


ROW = {
    "key": "000000001",
    "url": "http://x.org/red.jpg",
    "caption": "a red wall",
    "noun_chunks": [[0, 10, 0.1, 0.1, 0.5, 0.5, 1]],
}


@pytest.mark.parametrize(
    ("told", "row", "kept"),
    [
        ({"url": "http://x.org/red.jpg"}, {}, True),
        ({"url": "http://x.org/blue.jpg"}, {}, False),
        ({"caption": "a  red wall"}, {"url": None}, True),
        ({"caption": "a blue wall"}, {"url": None}, False),
        ({}, {}, True),
        ("no json", {}, True),
        (None, {}, True),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_photo_of_another_download_is_not_the_rows(tmp_path, told, row, kept, kind):
    members = {"000000001.jpg": encoded(), "000000002.jpg": encoded(colour="blue")}
    if told is not None:
        members["000000001.json"] = (told if isinstance(told, str) else json.dumps(told)).encode()
    (tmp_path / "photos").mkdir()
    if kind == "folder":
        for name, data in members.items():
            (tmp_path / "photos" / name).write_bytes(data)
    else:
        with tarfile.open(tmp_path / "photos/00000.tar", "w") as tar:
            for name, data in sorted(members.items()):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    rows = [{**ROW, **row}, {**ROW, "key": "000000002", "url": "http://x.org/other.jpg"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    card = convert_grit(tmp_path / "photos", [tmp_path / "rows.jsonl"], tmp_path / "out", workers=1, progress=False)
    lost = {} if kept else {"image_of_other_row": 1, "region_of_dropped_image": 1}
    assert (card["counts"]["samples"], card["dropped"]) == (1 + kept, lost)
    assert ShardSet.open(tmp_path / "out").num_samples == 1 + kept


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.zip", "found a zip; unpack it"), ("a.tar.gz", "compressed tar"), ("a.txt", "no tar and no Parquet")],
)
def test_places_that_cannot_be_read_say_what_to_do(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=said):
        Photos([tmp_path / name])
