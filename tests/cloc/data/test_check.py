"""`cloc.check`: each fault is put into a small set by hand and must be found, counted and named."""

import io
import json
import tarfile

import pytest
from PIL import Image

from cloc.check import examine, find_published, read_evaluation, read_evaluations
from cloc.check.__main__ import check, main
from cloc.check.evaluations import normalise_photo_name
from cloc.data.shards import write_shards
from cloc.data.tables import open_samples
from cloc.structures import Region, Sample


def photo(colour, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def sample(number, regions=(), colour=None, key=None, **extras):
    source = {"dataset": "tiny", "file_name": f"{number:012d}.jpg"}
    data = photo(colour or (number * 40 % 256, 90, 30))
    return Sample(
        key or f"{number:012d}", data, "jpg", 40, 30, f"photo {number}", tuple(regions), {"source": source} | extras
    )


def write(folder, samples, **card):
    told = {"name": "tiny", "kind": "regions", "licence": "CC BY 4.0", "made": {"by": "hand"}} | card
    write_shards(samples, folder, told)
    return folder


def repack(folder, change):
    """Rewrite the JSON members of a set's only shard, which no writer of ours would let through."""
    shard = folder / "000000.tar"
    with tarfile.open(shard) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]
    with tarfile.open(shard, "w") as tar:
        for name, data in members:
            data = json.dumps(change(json.loads(data))).encode() if name.endswith(".json") else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def cup(box=(1, 2, 20, 20), **extras):
    return Region(box, "cup", extras=extras)


def test_a_clean_set_has_no_fault_and_is_counted(tmp_path):
    write(tmp_path / "set", [sample(1, [cup()]), sample(2, [cup(), Region((0, 0, 9, 9), "a red door")])])
    found, report = check(tmp_path / "set", progress=False)
    assert dict(found.counts) == {
        "samples": 2,
        "captions": 2,
        "regions": 3,
        "different images": 2,
        "different phrases": 2,
    }
    assert (dict(found.faults), found.grave, dict(found.licences)) == ({}, [], {"CC BY 4.0": 2})
    assert "no figure is known for 'tiny'" in report
    assert main([str(tmp_path / "set")]) == 0


def test_boxes_phrases_and_duplicates_are_found(tmp_path):
    other = sample(3, [], colour=(7, 7, 7), image_id=1)
    twins = [sample(1, [cup()], image_id=1), sample(2, [], colour=(40, 90, 30)), other]
    write(tmp_path / "set", twins)
    bad = [{"box": [50, 50, 60, 60], "phrase": "out"}, {"box": [30, 20, 50, 25], "phrase": "over"}]
    bad += [{"box": [1, 1, 2, 2], "phrase": "  "}, {"box": [3, 3, 3, 9], "phrase": "thin"}]
    repack(tmp_path / "set", lambda meta: meta | {"regions": meta["regions"] + bad} if meta["regions"] else meta)
    found = examine(open_samples(tmp_path / "set"), progress=False)
    assert dict(found.faults) == {
        "box_outside": 1,
        "box_cut_at_border": 1,
        "empty_phrase": 1,
        "empty_box": 1,
        "duplicate_image": 1,
        "duplicate_image_id": 1,
        "count_differs_from_card": 1,
        "sha256_differs_from_card": 1,
    }
    assert found.examples["duplicate_image"] == ["000000000002"]
    assert found.examples["duplicate_image_id"] == ["000000000003"]
    repack(tmp_path / "set", lambda meta: meta | {"width": 41})
    assert examine(open_samples(tmp_path / "set"), progress=False).faults["image_of_other_size"] == 3


def test_a_cut_shard_and_equal_keys_are_grave(tmp_path, capsys):
    write(tmp_path / "set", [sample(i) for i in range(1, 5)])
    shard = tmp_path / "set/000000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert main([str(tmp_path / "set")]) == 1
    assert "truncated_shard" in capsys.readouterr().out
    two = write(tmp_path / "two", [sample(1)]), write(tmp_path / "two/more", [sample(1)])
    (two[1] / "000000.tar").rename(two[0] / "000001.tar")
    (two[0] / "dataset.json").unlink()
    found = examine(open_samples(f"{two[0]}/*.tar"), progress=False)
    assert (found.faults["duplicate_key"], found.grave) == (1, ["1 duplicate_key"])


def evaluation_files(folder):
    """The same photo, COCO's number 2, as each kind of evaluation file names it."""
    folder.mkdir()
    images = [{"id": 2, "file_name": "COCO_val2014_000000000002.jpg", "width": 40, "height": 30}]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    (folder / "REC_a_unc_val.jsonl").write_text(json.dumps({"img_path": "train2014/COCO_train2014_000000000002.jpg"}))
    refs = [{"image_id": 2, "split": "testA", "sentences": []}, {"image_id": 1, "split": "train", "sentences": []}]
    (folder / "refs(unc).json").write_text(json.dumps(refs))
    lvis = [{"id": 2, "coco_url": "http://images.cocodataset.org/train2017/000000000002.jpg"}]
    (folder / "lvis.json").write_text(json.dumps({"images": lvis, "annotations": [], "categories": []}))
    return [folder / name for name in ("instances.json", "REC_a_unc_val.jsonl", "refs(unc).json", "lvis.json")]


def test_photos_of_an_evaluation_split_are_found_by_name_and_by_bytes(tmp_path):
    write(tmp_path / "set", [sample(i) for i in (1, 2, 3)])
    splits = evaluation_files(tmp_path / "eval")
    renamed = sample(3)
    renamed = Sample("x", renamed.image, "jpg", 40, 30, "", (), {"source": {"file_name": "other.jpg"}})
    shards = write(tmp_path / "eval/shards", [renamed])
    found, report = check(tmp_path / "set", [*splits, shards], progress=False)
    assert {name: dict(how) for name, how in found.overlaps.items()} == {
        **{path.name: {"name": 1} for path in splits},
        "shards": {"bytes": 1},
    }
    assert found.examples["in refs(unc).json"] == ["000000000002"]
    assert "1 samples stand in the evaluation split shards" in report
    assert main([str(tmp_path / "set"), "--against", str(splits[0])]) == 1


def test_visual_genome_photos_are_known_by_their_coco_number(tmp_path):
    vg = sample(2372979, source={"file_name": "VG_100K/2372979.jpg", "coco_id": 2})
    write(tmp_path / "set", [vg])
    (split, *_) = evaluation_files(tmp_path / "eval")
    found, _ = check(tmp_path / "set", [split], progress=False)
    assert found.overlaps["instances.json"] == {"name": 1}


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("COCO_train2014_000000000009.jpg", "coco:9"),
        ("train2017/000000000009.jpg", "coco:9"),
        ("COCO_train2014_000000000009_3.jpg", "coco:9"),  # refer's file_name
        ("VG_100K/9.jpg", "9.jpg"),
        ("2332870.jpg", "2332870.jpg"),
        ("a\\b\\1000092795.jpg", "1000092795.jpg"),
    ],
)
def test_names_of_photos(file_name, name):
    assert normalise_photo_name(file_name) == name


def test_two_numberings_clash_and_another_vocabulary_does_not(tmp_path):
    names = ["cup", "door", "red_car", "tree"]
    listed = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    regions = [cup(category_id=1), Region((0, 0, 5, 5), "red car", extras={"category_id": 3})]
    write(tmp_path / "set", [sample(1, regions)], categories=listed, kind="detection")
    other = {"images": [{"id": 9, "file_name": "000000000009.jpg"}], "annotations": []}
    shifted = [{"id": i, "name": name} for i, name in enumerate(["apple", *names], 1)]
    far = [{"id": 1, "name": "zebra"}, {"id": 2, "name": "yak"}, {"id": 3, "name": "cup"}]
    for file, categories in (("shifted.json", shifted), ("far.json", far), ("same.json", listed)):
        (tmp_path / file).write_text(json.dumps(other | {"categories": categories}))
    found, _ = check(tmp_path / "set", [tmp_path / f"{n}.json" for n in ("shifted", "far", "same")], progress=False)
    assert found.clashes == {
        "shifted.json": [(1, "cup", "apple"), (2, "door", "cup"), (3, "red_car", "door"), (4, "tree", "red_car")]
    }
    assert found.other_vocabularies == ["far.json"]
    regions = [Region((0, 0, 5, 5), "glass", extras={"category_id": 1})]
    write(tmp_path / "bad", [sample(1, regions), sample(2, regions)], categories=listed, kind="detection")
    found, _ = check(tmp_path / "bad", progress=False)
    assert found.clashes == {"the set itself": [(1, "glass", "cup")]}
    assert found.faults["category_clash"] == 2


def test_counts_stand_beside_the_published_ones(tmp_path):
    write(tmp_path / "set", [sample(1, [cup()])], name="refcoco-testB")
    _, report = check(tmp_path / "set", progress=False)
    assert (
        "published: regions 5,095, here 1: not compared, for this is a part of it (0.02%) [official annotation"
        in report
    )
    figures = find_published({"name": "mine", "made": {"by": "cloc.data.convert visual_genome"}})[1]
    assert [figure.what for figure in figures] == ["different images", "regions an image"]
    assert figures[0].agrees(108_077)  # Visual Genome's images; Table 1 prints 108K
    assert not figures[0].agrees(100_000)
    _, report = check(tmp_path / "set", known_as="lvis-minival", progress=False)
    assert "published: samples 4,809, here 1: not compared, for this is a part of it (0.02%)" in report
    (figure,) = find_published({"name": "lvis-minival"})[1]
    assert "DIFFERS by -9 [" in figure.line(4_800)  # some were lost on the way


def test_a_split_is_known_by_the_file_that_it_was_made_from():
    made = {"by": "cloc.data.convert coco", "instances": {"file": "instances_val2017.json", "sha256": "0"}}
    name, (figure,) = find_published({"name": "coco", "made": made})
    assert (name, figure.value) == ("coco-val2017", 5_000)
    assert find_published({"name": "coco", "made": made | {"limit": 7}}) == ("the first 7 images of coco", ())
    lvis = {"by": "cloc.data.convert lvis", "annotations": {"file": "lvis_v1_train.json"}}
    assert find_published({"name": "lvis", "made": lvis}) == ("lvis", ())


def test_a_figure_of_all_splits_is_not_held_against_one_of_them(tmp_path):
    write(tmp_path / "set", [sample(1, [cup()])], name="refcoco-train")
    _, report = check(tmp_path / "set", progress=False)
    assert "different images 20,000 in all splits together, here 1: not compared, for this is one split [" in report
    (figure,) = find_published({"name": "refcocog-train"})[1]
    assert "here 26,711: agrees [" in figure.line(26_711)
    assert "here 40,000: DIFFERS by +13,000 [" in figure.line(40_000)  # more than there are


def test_the_sheet_and_the_page_show_boxes_and_phrases(tmp_path):
    regions = [Region((4, 3, 36, 27), "<b>a cup</b> & saucer")]
    write(tmp_path / "set", [sample(i, regions, colour=(200, 200, 200)) for i in range(1, 8)])
    check(tmp_path / "set", out=tmp_path / "look", show=5, progress=False)
    sheet = Image.open(tmp_path / "look/sheet.png")
    assert sheet.width == 4 * 332 + 12
    counts = {colour: number for number, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert counts[(214, 39, 40)] > 5 * 2 * (2 * 256 + 2 * 192) * 0.8  # five boxes of 256 x 192, two pixels wide
    page = (tmp_path / "look/sheet.html").read_text()
    assert page.count("<figure>") == page.count("data:image/jpeg;base64,") == 5
    assert "&lt;b&gt;a cup&lt;/b&gt; &amp; saucer" in page
    assert "<b>a cup" not in page
    assert "http" not in page
    assert json.loads((tmp_path / "look/check.json").read_text())["counts"]["samples"] == 7


def test_an_image_that_cannot_be_decoded_is_shown_as_such(tmp_path):
    broken = sample(1)
    broken = Sample("x", broken.image[:200] + bytes(50), "jpg", 40, 30, "half", (), {})
    write(tmp_path / "set", [broken, sample(2)])
    check(tmp_path / "set", out=tmp_path / "look", progress=False)
    assert (tmp_path / "look/sheet.html").read_text().count("data:image/jpeg") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: expected a folder with NNNNNN.tar shards"),
        (
            ["set", "--against", "no.json"],
            "no.json: expected COCO's, LVIS's or the refer toolkit's JSON, found no file",
        ),
        (["set", "--against", "empty.json"], "expected COCO's or LVIS's JSON with the list images, found none in it"),
        (["set", "--against", "train.json"], "train.json: expected refs of val or test splits, found none"),
        (["set", "--as", "coco"], "--as: expected one of coco-train2017"),
        (["set", "--show", "0"], "--show: expected at least 1 sample, got 0"),
    ],
)
def test_mistakes_are_one_line_and_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", [sample(1)])
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "train.json").write_text(json.dumps([{"split": "train", "image_id": 1}]))
    assert main(arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert message in told


def test_shards_and_files_without_photos_as_evaluation_splits(tmp_path):
    write(tmp_path / "set", [sample(1)])
    assert read_evaluation(tmp_path / "set").photos == {"coco:1"}
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="expected the photos of an evaluation split"):
        read_evaluation(tmp_path / "x.jsonl")


def test_a_root_of_refcoco_is_every_split_in_it(tmp_path):
    for folder, number in (("refcoco", 7), ("refcoco+", 8)):
        (tmp_path / folder).mkdir()
        refs = [{"image_id": number, "split": "val"}, {"image_id": 99, "split": "train"}]
        (tmp_path / folder / "refs(unc).json").write_text(json.dumps(refs))
    splits = read_evaluations(tmp_path)
    assert [(split.name, split.photos) for split in splits] == [
        ("refcoco/refs(unc).json", {"coco:7"}),
        ("refcoco+/refs(unc).json", {"coco:8"}),
    ]
    assert [split.name for split in read_evaluations(tmp_path / "refcoco")] == ["refcoco/refs(unc).json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        read_evaluations(tmp_path / "empty")
