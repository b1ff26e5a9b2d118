"""Shards: the same bytes every time, read by anyone, and every kind of damage gets its name."""

import gc
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from cloc.data.shards import ShardIndex, ShardSet, write_shard, write_shards
from cloc.structures import DataError, Region, Sample

CARD = {"name": "tiny", "kind": "regions", "licence": "none", "made": {"by": "a test", "seed": 0}}


def picture(shade=0, image_format="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (shade % 256, 90, 30)).save(buffer, image_format)
    return buffer.getvalue()


def sample(number, ending="jpg"):
    image = picture(number, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending])
    regions = (Region((1.0, 2.0, 9.0, 8.5), "a red cup", score=0.5, extras={"category_id": 3, "crowd": False}),)
    caption = "" if number % 3 == 2 else f"caption {number}"
    return Sample(f"key{number}", image, ending, 20, 10, caption, regions, {"image_id": number})


def tar_of(path, members):
    with tarfile.open(path, "w:") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


META = json.dumps({"schema": 1, "width": 20, "height": 10, "regions": []}).encode()


def test_samples_come_back_as_they_were_written(tmp_path):
    samples = [sample(0), sample(1, "png"), sample(2, "webp"), sample(3)]
    card = write_shards(samples, tmp_path / "set", CARD, shard_size=3)
    shards = ShardSet.open(tmp_path / "set")
    assert shards.counts == (3, 1)
    assert shards.num_samples == 4
    assert shards.kind == "regions"
    assert [shards.read_sample(0, 0), shards.read_sample(0, 1), shards.read_sample(0, 2)] == samples[:3]
    assert shards.read_sample(1, 0) == samples[3]
    assert shards.card == card
    assert card["counts"] == {"samples": 4, "captions": 3, "regions": 4}
    digest = hashlib.sha256((tmp_path / "set/000001.tar").read_bytes()).hexdigest()
    assert card["shards"][1] == {"file": "000001.tar", "samples": 1, "sha256": digest}


def test_equal_samples_give_equal_bytes(tmp_path):
    first, second = (write_shard(tmp_path / name, map(sample, range(5))) for name in ("a.tar", "b.tar"))
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_webdataset_reads_image_and_caption(tmp_path):
    import webdataset

    write_shards([sample(0), sample(1, "png")], tmp_path / "set", CARD)
    pairs = (
        webdataset.WebDataset(str(tmp_path / "set/000000.tar"), shardshuffle=False)
        .decode("pil")
        .to_tuple("jpg;png", "txt")
    )
    assert [(image.size, text) for image, text in pairs] == [((20, 10), "caption 0"), ((20, 10), "caption 1")]


def test_a_set_made_in_the_same_way_is_left_alone_and_another_is_refused(tmp_path):
    out = tmp_path / "set"
    card = write_shards(map(sample, range(3)), out, CARD)
    before = (out / "000000.tar").stat().st_mtime_ns

    def never():
        raise AssertionError("no sample may be taken")
        yield

    assert write_shards(never(), out, CARD) == card
    assert (out / "000000.tar").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"made with other parameters \(different: seed\).*not overwritten"):
        write_shards(map(sample, range(3)), out, {**CARD, "made": {"by": "a test", "seed": 1}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(picture())
    with pytest.raises(ValueError, match=r"exists and has no dataset.json: it is not overwritten"):
        write_shards(map(sample, range(3)), tmp_path / "mine", CARD)


def test_an_interrupted_set_does_not_appear_and_is_made_anew(tmp_path):
    def breaking():
        yield from map(sample, range(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(breaking(), tmp_path / "set", CARD, shard_size=2)
    assert not (tmp_path / "set").exists()
    write_shards(map(sample, range(3)), tmp_path / "set", CARD, shard_size=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["000000.tar", "000001.tar", "dataset.json"]


@pytest.mark.parametrize(
    ("samples", "card", "size", "message"),
    [
        ([sample(1), sample(1)], CARD, 5, "expected different keys, got 'key1' twice"),
        ([], CARD, 5, "expected at least one sample to write, got none"),
        ([sample(1)], {**CARD, "kind": "photos"}, 5, "expected kind to be one of pairs, regions"),
        ([sample(1)], CARD, 0, "shard_size: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, samples, card, size, message):
    with pytest.raises(ValueError, match=message):
        write_shards(samples, tmp_path / "set", card, size)


@pytest.mark.parametrize(
    ("members", "reason", "message"),
    [
        ([("k.jpg", picture()), ("k.txt", b"hi")], "missing_json", r"a.tar:k: expected a .json member"),
        ([("k.json", META), ("k.txt", b"hi")], "missing_image", r"a.tar:k: expected .jpg, .png or .webp, got"),
        ([("k.jpg", picture()), ("k.json", b"{")], "bad_json", r"a.tar:k.json: expected JSON"),
        ([("k.jpg", picture()), ("k.json", b"[]")], "bad_json", r"a.tar:k.json: expected a JSON object, got a list"),
        ([("k.jpg", picture()), ("k.json", META), ("k.txt", b"\xff")], "bad_text", r"a.tar:k.txt: expected UTF-8"),
        ([("k.jpg", picture()), ("k.json", META.replace(b"1,", b"9,", 1))], "bad_schema", "expected schema 1, got 9"),
    ],
)  # fmt: skip
def test_a_damaged_sample_says_what_is_wrong_with_it(tmp_path, members, reason, message):
    shards = ShardSet.open(str(tar_of(tmp_path / "a.tar", members)))
    with pytest.raises(DataError, match=message) as caught:
        shards.read_sample(0, 0)
    assert caught.value.reason == reason


def test_a_missing_sample_does_not_move_its_neighbours(tmp_path):
    members = [("a.jpg", picture()), ("b.jpg", picture()), ("b.json", META), ("b.txt", b"b's caption")]
    shards = ShardSet.open(str(tar_of(tmp_path / "a.tar", members)))
    with pytest.raises(DataError):
        shards.read_sample(0, 0)
    assert shards.read_sample(0, 1).caption == "b's caption"


def test_unusable_regions_are_counted_in_the_sample(tmp_path):
    boxes = [[1, 1, 5, 5], [float("nan"), 1, 5, 5], [3, 3, 3, 9], [50, 50, 60, 60], [15, 5, 25, 9]]
    regions = [{"box": box, "phrase": "cup"} for box in boxes] + [{"box": [1, 1, 5, 5], "phrase": " "}]
    meta = json.dumps({"schema": 1, "width": 20, "height": 10, "regions": regions}).encode()
    shards = ShardSet.open(str(tar_of(tmp_path / "a.tar", [("k.jpg", picture()), ("k.json", meta)])))
    read = shards.read_sample(0, 0)
    assert [region.box for region in read.regions] == [(1, 1, 5, 5), (15, 5, 20, 9)]
    assert read.dropped == Counter(nan_box=1, empty_box=1, box_outside=1, box_cut_at_border=1, empty_phrase=1)


def test_pairs_may_lack_the_json(tmp_path):
    tar_of(tmp_path / "000000.tar", [("k.png", picture(5, "PNG")), ("k.txt", b"a cup\n"), ("m.jpg", b"no image")])
    card = {"kind": "pairs", "shards": [{"file": "000000.tar", "samples": 2}]}
    (tmp_path / "dataset.json").write_text(json.dumps(card))
    shards = ShardSet.open(tmp_path)
    read = shards.read_sample(0, 0)
    assert (read.width, read.height, read.caption, read.regions) == (20, 10, "a cup", ())
    with pytest.raises(DataError, match="the image's header cannot be read"):
        shards.read_sample(0, 1)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.77, 0.999])
def test_a_shard_cut_short_keeps_what_is_whole_and_counts_the_rest(tmp_path, part):
    samples = [sample(number) for number in range(12)]
    write_shards(samples, tmp_path / "set", CARD)
    path = tmp_path / "set/000000.tar"
    data = path.read_bytes()
    content = len(data.rstrip(b"\0")) if part > 0.9 else len(data)
    path.write_bytes(data[: int(content * part)])
    shards, kept, lost = ShardSet.open(tmp_path / "set"), [], Counter()
    for number in range(12):
        try:
            kept.append(shards.read_sample(0, number))
        except DataError as error:
            lost[error.reason] += 1
            message = str(error)
    assert "expected 12 samples, the file ends after" in message
    assert kept == samples[: len(kept)]
    assert lost == {"truncated_shard": 12 - len(kept)}
    assert 0 < len(kept) < 12
    assert shards.index(0).dropped["truncated_shard"] == 1


def test_a_cut_at_any_byte_gives_whole_samples_only(tmp_path):
    path = tmp_path / "a.tar"
    samples = [sample(number) for number in range(3)]
    write_shard(path, samples)
    data = path.read_bytes()
    for end in [0, *range(512, len(data.rstrip(b"\0")), 211)]:
        path.write_bytes(data[:end])
        index = ShardIndex.open(path)
        assert index.dropped == {"truncated_shard": 1}
        whole = [entry for entry in index.entries if {"jpg", "json", "txt"} <= set(entry[1])]
        assert len(whole) >= len(index) - (len(index) == 1)
        for _, members in whole:
            assert all(offset + size <= end for offset, size in members.values())


def test_names_that_climb_out_and_double_members_are_counted(tmp_path):
    members = [("../k.jpg", b"x"), ("/k.jpg", b"x"), ("noending", b"x"), ("a/k.jpg", b"1"), ("a/k.jpg", b"22")]
    index = ShardIndex.open(tar_of(tmp_path / "a.tar", members))
    assert [(key, {e: size for e, (_, size) in found.items()}) for key, found in index.entries] == [("a/k", {"jpg": 1})]
    assert index.dropped == {"bad_name": 3, "duplicate_member": 1}


def test_sources_without_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder with NNNNNN.tar shards.*python -m cloc.scenes"):
        ShardSet.open(tmp_path)
    with pytest.raises(ValueError, match=r"expected a folder with NNNNNN.tar shards"):
        ShardSet.open(tmp_path / "nothing-*.tar")
    write_shards(map(sample, range(4)), tmp_path / "set", CARD, shard_size=2)
    (tmp_path / "set/000001.tar").unlink()
    with pytest.raises(ValueError, match=r"names 1 shards that are not there \(first: 000001.tar\)"):
        ShardSet.open(tmp_path / "set")
    (tmp_path / "bad.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(ValueError, match=r"bad.tar: expected an uncompressed tar"):
        ShardSet.open(tmp_path / "bad.tar")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset.json: expected the card of a set, got text that is no JSON"):
        ShardSet.open(tmp_path)


def test_a_pattern_takes_some_shards_and_their_counts_from_the_card(tmp_path):
    write_shards(map(sample, range(5)), tmp_path / "set", CARD, shard_size=2)
    shards = ShardSet.open(str(tmp_path / "set/00000[12].tar"))
    assert [path.name for path in shards.shards] == ["000001.tar", "000002.tar"]
    assert shards.counts == (2, 1)
    (tmp_path / "set/dataset.json").unlink()
    assert ShardSet.open(tmp_path / "set").counts == (2, 2, 1)
    with pytest.raises(IndexError, match="sample 2 of 2"):
        shards.read_sample(0, 2)


@pytest.fixture
def two_folders(tmp_path):
    """a/ with three shards of 2, 2 and 1 samples, b/ with one of 3, in files of the same names."""
    write_shards(map(sample, range(5)), tmp_path / "a", CARD, shard_size=2)
    write_shards(map(sample, range(5, 8)), tmp_path / "b", CARD | {"name": "other"}, shard_size=3)
    return tmp_path


def names(shards):
    return [f"{path.parent.name}/{path.name}" for path in shards.shards]


def test_braces_and_double_colons_name_shards_as_in_open_clip(two_folders):
    shards = ShardSet.open(f"{two_folders}/a/{{000001..000002}}.tar::{two_folders}/b/*.tar")
    assert names(shards) == ["a/000001.tar", "a/000002.tar", "b/000000.tar"]
    assert shards.counts == (2, 1, 3)
    assert [shards.read_sample(*place).key for place in ((0, 0), (1, 0), (2, 2))] == ["key2", "key4", "key7"]
    with pytest.raises(ValueError, match=r"2 of the 5 shards that it names are not there \(first: .*/a/000003\.tar\)"):
        ShardSet.open(f"{two_folders}/a/{{000000..000004}}.tar")
    with pytest.raises(ValueError, match=r"expected a folder with NNNNNN\.tar shards or a pattern"):
        ShardSet.open(f"{two_folders}/c/{{000000..000004}}.tar")


def test_shards_of_several_folders_count_by_their_own_cards(two_folders):
    """Both folders hold a 000000.tar, one with two samples and one with three."""
    shards = ShardSet.open(f"{two_folders}/*/*.tar")
    assert names(shards)[-1] == "b/000000.tar"
    assert shards.counts == (2, 2, 1, 3)
    assert shards.kind == "regions"
    assert shards.card == {"schema": 1, "kind": "regions", "licence": "none"}  # what both say, beyond counts and shards
    (two_folders / "b" / "dataset.json").unlink()
    without = ShardSet.open(f"{two_folders}/*/*.tar", "pairs")
    assert (without.card, without.kind, without.counts) == (None, "pairs", (2, 2, 1, 3))


def test_a_thousand_reads_hold_no_file_and_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("cloc.data.shards.read._KEPT_INDICES", 4)
    write_shards(map(sample, range(100)), tmp_path / "set", CARD, shard_size=10)
    shards = ShardSet.open(tmp_path / "set")

    def held():
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(list(Path("/proc/self/fd").iterdir()))

    def read(count):
        for number in range(count):
            shards.read_sample(number // 10 % 10, number % 10)

    tracemalloc.start()
    try:
        read(200)
        memory, files = held()
        read(1000)
        more, still = held()
    finally:
        tracemalloc.stop()
    assert more - memory < 20_000  # twenty bytes a read
    assert still <= files
    assert len(shards._indices) == 4


@pytest.mark.parametrize("name", ["../000000.tar", "deep/000000.tar", "/000000.tar", "..", None])
def test_a_card_names_shards_of_its_own_folder_only(name, tmp_path):
    write_shards([sample(1)], tmp_path / "set", CARD)
    file = tmp_path / "set" / "dataset.json"
    card = json.loads(file.read_text())
    card["shards"][0]["file"] = name
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"set/dataset\.json: shards\.0\.file: .*; copy it again, or make"):
        ShardSet.open(tmp_path / "set")


CARD_FAULTS = [
    ({"samples": 10**30}, r"shards\.0\.samples: Input should be a valid integer"),
    ({"samples": 10**9}, r"shards\.0\.samples: Input should be less than or equal to 10000000"),
    ({"samples": -1}, r"shards\.0\.samples"),
    ({"samples": "3"}, r"shards\.0\.samples"),
    ({"samples": True}, r"shards\.0\.samples"),
    ({"sha256": 3}, r"shards\.0\.sha256"),
    ({"kind": ["pairs"]}, "kind"),
    ({"kind": "photos"}, "kind"),
    ({"schema": 2}, "schema"),
    ({"counts": {"samples": "many"}}, r"counts\.samples"),
    ({"counts": 3}, "counts"),
    ({"dropped": [1]}, "dropped"),
    ({"categories": {"1": "cat"}}, "categories"),
    ({"categories": [{"id": "1", "name": "cat"}]}, r"categories\.0\.id"),
    ({"categories": [{"id": 1}]}, r"categories\.0\.name"),
    ({"shards": "000000.tar"}, "shards"),
    ({"licence": ["a"]}, "licence"),
    ({"rendered": "yes"}, "rendered"),
    ({"name": None, "made": 3}, "made"),
]


@pytest.mark.parametrize(("changes", "place"), CARD_FAULTS, ids=str)
def test_a_field_of_a_card_of_another_type_is_named(changes, place, tmp_path):
    write_shards([sample(1)], tmp_path / "set", CARD)
    file = tmp_path / "set" / "dataset.json"
    card = json.loads(file.read_text())
    (card["shards"][0] if set(changes) <= {"samples", "sha256"} else card).update(changes)
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"dataset\.json: {place}[^\n]*; copy it again, or make the set again\Z"):
        ShardSet.open(tmp_path / "set")


def test_further_fields_of_a_card_stay(tmp_path):
    card = write_shards(
        [sample(1)], tmp_path / "set", {**CARD, "extra": {"a": [1]}, "categories": [{"id": 1, "name": "c", "own": 2}]}
    )
    assert ShardSet.open(tmp_path / "set").card == card


@pytest.mark.parametrize("damage", [b"this is no tar" * 100, b"", bytes(512), bytes(10240), b"\xff" * 600])
def test_a_shard_that_is_no_tar_costs_its_own_samples_only(damage, tmp_path):
    write_shards(map(sample, range(4)), tmp_path / "set", CARD, shard_size=2)
    (tmp_path / "set/000001.tar").write_bytes(damage)
    shards = ShardSet.open(tmp_path / "set")
    assert [shards.read_sample(0, i).key for i in range(2)] == ["key0", "key1"]
    for i in (0, 1, 0):
        with pytest.raises(DataError) as told:
            shards.read_sample(1, i)
        assert told.value.reason in ("bad_shard", "truncated_shard")
    assert list(shards.altered_shards()) == [tmp_path / "set/000001.tar"]


def test_a_shard_that_has_gone_is_no_fault_of_the_data(tmp_path):
    write_shards(map(sample, range(4)), tmp_path / "set", CARD, shard_size=2)
    shards = ShardSet.open(tmp_path / "set")
    (tmp_path / "set/000001.tar").unlink()
    with pytest.raises(OSError, match=r"000001\.tar"):
        shards.read_sample(1, 0)


def pax(records, kind=tarfile.XHDTYPE, size=None):
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(records) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def plain(name, data, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


GOOD = [("k.jpg", picture()), ("k.json", META), ("k.txt", b"c")]
HOSTILE = {
    "2 million digits": pax(b"1" * 2_000_000 + b" path=x"),
    "size of 5,000 digits": pax(b"5020 size=" + b"9" * 5_000 + b"\n"),
    "nested": 3_000 * pax(b"", tarfile.GNUTYPE_LONGNAME),
    "nested pax": 3_000 * pax(b""),
    "long name of 2^40": plain("x", b"", type=tarfile.GNUTYPE_LONGNAME)[:124]
    + b"\x80"
    + (1 << 40).to_bytes(11)
    + bytes(376),
    "below 0": plain("a.jpg", b"")[:124] + b"\xff" * 12 + plain("a.jpg", b"")[136:],
    "sparse list without end": pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
    + plain("x", b"9" * 4_000 + b"\n" + b"1\n" * 40_000),
    "half a sparse list": pax(b"22 GNU.sparse.map=0,x\n"),
    "no number": plain("a.jpg", b"", mode=0)[:100] + b"zzzzzzzz" + plain("a.jpg", b"")[108:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_ends_a_shard_and_what_stands_before_is_read(name, tmp_path):
    good = b"".join(plain(*member) for member in GOOD)
    (tmp_path / "a.tar").write_bytes(good + HOSTILE[name] + plain("z.jpg", picture()))
    index = ShardIndex.open(tmp_path / "a.tar")
    assert [key for key, _ in index.entries][:1] == ["k"]
    assert index.dropped["truncated_shard"] == 1
    write_shards([sample(1)], tmp_path / "set", CARD)
    (tmp_path / "set/000000.tar").write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as told:
        ShardSet.open(tmp_path / "set").read_sample(0, 0)
    assert told.value.reason in ("bad_shard", "truncated_shard")


def test_long_names_and_further_headers_of_ordinary_tars_are_read(tmp_path):
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
            for ending, data in GOOD:
                info = tarfile.TarInfo("deep/" * 300 + "é" * 100 + "-" + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        assert ShardSet.open(str(tmp_path / "a.tar")).read_sample(0, 0).caption == "c"


def test_a_member_too_large_to_read_is_refused_by_its_header(tmp_path):
    head = plain("k.jpg", picture()) + plain("k.txt", b"c") + plain("k.json", b"")[:124]
    json_header = tarfile.TarInfo("k.json")
    json_header.size = 6 << 30
    (tmp_path / "a.tar").write_bytes(head[:-124] + json_header.tobuf(tarfile.GNU_FORMAT))
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate((6 << 30) + 20_480)  # a hole: no disk is taken
    with pytest.raises(DataError) as told:
        ShardSet.open(str(tmp_path / "a.tar")).read_sample(0, 0)
    assert told.value.reason == "member_too_large"


def test_a_name_of_other_bytes_than_utf8_is_left_out(tmp_path):
    data = b"".join(plain(*member) for member in GOOD) + plain("\udcff.jpg", picture()) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(data)
    index = ShardIndex.open(tmp_path / "a.tar")
    assert (len(index), index.dropped) == (1, {"bad_name": 1})


SAMPLE_FAULTS = [
    ({"width": 10**400}, "bad_size"),
    ({"width": True}, "bad_size"),
    ({"width": 20.0}, "bad_size"),
    ({"height": "10"}, "bad_size"),
    ({"regions": {"0": 1}}, "bad_json"),
    ({"captions": [1]}, "bad_text"),
]


@pytest.mark.parametrize(("changes", "reason"), SAMPLE_FAULTS, ids=str)
def test_a_field_of_a_sample_of_another_type_costs_the_sample(changes, reason, tmp_path):
    meta = json.dumps(json.loads(META) | changes).encode()
    shards = ShardSet.open(str(tar_of(tmp_path / "a.tar", [("k.jpg", picture()), ("k.json", meta)])))
    with pytest.raises(DataError) as told:
        shards.read_sample(0, 0)
    assert told.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [b'{"schema":1,"regions":' + b"[" * 100_000, b'{"a":"\\ud800"}', b'{"width":' + b"9" * 5_000, b"\xff", b"[]"],
)
def test_json_that_breaks_readers_costs_the_sample(text, tmp_path):
    shards = ShardSet.open(str(tar_of(tmp_path / "a.tar", [("k.jpg", picture()), ("k.json", text)])))
    with pytest.raises(DataError) as told:
        shards.read_sample(0, 0)
    assert told.value.reason == "bad_json"


def test_a_field_of_a_region_of_another_type_costs_the_region():
    good = {"box": [1, 2, 9, 8], "phrase": "a cup"}
    faults = {
        "bad_crowd": {"crowd": "0"}, "bad_category_id": {"category_id": "3"}, "bad_score": {"score": "high"},
        "bad_box": {"box": [1, 2, "9", 8]}, "nan_box": {"box": [1, 2, float("inf"), 8]},
    }  # fmt: skip
    meta = json.loads(META) | {"regions": [good, *({**good, **fault} for fault in faults.values())]}
    found = Sample.from_json("k", picture(), "jpg", "c", meta)
    assert len(found.regions) == 1
    assert found.dropped == dict.fromkeys(faults, 1)
