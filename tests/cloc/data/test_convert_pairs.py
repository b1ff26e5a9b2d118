"""Image-text pairs: loose files and tars, every photo without a usable text counted."""

import io
import tarfile

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.pairs import convert_pairs
from cloc.data.shards import ShardSet


def jpeg(size=(30, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


FILES = {
    "b.2.jpg": jpeg(),
    "b.2.txt": b"\xef\xbb\xbfA red\n wall. ",
    "a/c.JPEG": jpeg((10, 40)),
    "a/c.txt": "Überall rot".encode(),
    "latin.jpg": jpeg(),
    "latin.txt": "Überall".encode("latin-1"),
    "blank.jpg": jpeg(),
    "blank.txt": b" \n",
    "mute.jpg": jpeg(),
    "alone.txt": b"no photo",
    "broken.jpg": b"no image",
    "broken.txt": b"a text",
    "notes.md": b"not a pair",
}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def pack(path, members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def samples(folder):
    shards = ShardSet.open(folder)
    return [shards.read_sample(shard, i) for shard, count in enumerate(shards.counts) for i in range(count)]


def test_loose_pairs_arrive_and_the_rest_is_counted(folder):
    card = convert_pairs(folder / "in", folder / "out", progress=False)
    first, second = samples(folder / "out")
    assert (first.caption, second.caption) == ("Überall rot", "A red wall.")
    assert (first.image, second.image) == (FILES["a/c.JPEG"], FILES["b.2.jpg"])
    assert (first.width, first.height, first.regions) == (10, 40, ())
    assert [sample.extras["source"]["file_name"] for sample in (first, second)] == ["a/c", "b.2"]
    assert card["kind"] == "pairs"
    assert card["read"] == {"pairs": 7}
    assert card["counts"] == {"samples": 2, "captions": 2, "regions": 0}
    assert card["dropped"] == {
        "bad_text": 1,
        "caption_missing": 1,
        "empty_caption": 1,
        "image_missing": 1,
        "image_unreadable": 1,
    }


def test_tars_of_img2dataset_arrive_with_equal_keys_and_without_climbing_names(tmp_path):
    pair = [("000.jpg", jpeg()), ("000.txt", b"one"), ("000.json", b'{"status": "success"}')]
    failed = [("001.json", b'{"status": "failed_to_download"}')]
    climbing = [("../../002.jpg", jpeg()), ("../../002.txt", b"out")]
    pack(tmp_path / "in/00000.tar", [*pair, *failed, *climbing])
    pack(tmp_path / "in/00001.tar", [("000.png", jpeg((9, 9))), ("000.txt", b"two")])
    card = convert_pairs(tmp_path / "in", tmp_path / "out", shard_size=1, progress=False)
    first, second = samples(tmp_path / "out")
    assert [(sample.key, sample.caption) for sample in (first, second)] == [("000000000", "one"), ("000000001", "two")]
    assert (first.image, second.image) == (jpeg(), jpeg((9, 9)))
    assert second.image_format == "jpg"  # the content decides, not the name
    assert second.extras["source"]["file_name"] == "00001/000"
    assert card["dropped"] == {"bad_name": 2, "image_missing": 1}
    assert not (tmp_path.parent / "002.jpg").exists()


def test_twice_gives_the_same_bytes_and_a_changed_folder_is_noticed(folder):
    for out in ("a", "b"):
        convert_pairs(folder / "in", folder / out, progress=False)
    for name in ("000000.tar", "dataset.json"):
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()
    (folder / "in/mute.txt").write_text("no longer")
    with pytest.raises(ValueError, match=r"made with other parameters \(different: files, listing_sha256\)"):
        convert_pairs(folder / "in", folder / "a", progress=False)


def test_the_command_names_a_mistake_and_makes_nothing(folder, capsys):
    def told(images, out="out"):
        assert main(["pairs", "--images", str(folder / images), "--out", str(folder / out)]) == 2
        return capsys.readouterr().err

    (folder / "empty").mkdir()
    (folder / "mute").mkdir()
    (folder / "mute/1.jpg").write_bytes(jpeg())
    assert "nowhere: expected the folder of the photos, found no folder" in told("nowhere")
    assert "empty: expected KEY.jpg (png, webp) with KEY.txt, or tars of them; found none" in told("empty")
    assert "mute: expected at least one usable image, found none (1 caption_missing)" in told("mute")
    assert "expected a folder outside" in told("in", "in/out")
    pack(folder / "in/00000.tar", [("1.jpg", jpeg())])
    assert "in: expected either tars or loose photos, got 1 tars and loose files (first: a/c.JPEG)" in told("in")
    assert not (folder / "out").exists()
    assert not (folder / "in/out").exists()
