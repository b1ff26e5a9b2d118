import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.data_roots import list_coco_files
from benchmarks.metrics.intervals import find_interval
from benchmarks.tasks import region_retrieval
from benchmarks.tasks.contract import Options
from benchmarks.tasks.region_retrieval import Pool, RegionRetrieval, choose_regions, find_chance, score_recalls
from benchmarks.tasks.region_texts import OTHER_SHAPE, convert_annotated, read_region_shards
from cloc.data.shards import write_shards
from cloc.formats.coco import read_coco
from cloc.structures import Region, Sample

QUIET = Options(progress=False)
TASK = RegionRetrieval()


def measure(root, predictor):
    (found,) = TASK.find([root])
    return TASK.run(predictor, found.load(), found, QUIET)


def scores(measured):
    return {(s.protocol.removeprefix("one-per-text-and-image/"), s.metric): s for s in measured.scores}


def test_perfect_answers(root, colours):
    found = scores(measure(root, colours.Reader()))
    assert len(found) == 12
    assert found["merged/region-to-text", "recall@1"].tally.value() == 1.0
    assert found["merged/text-to-region", "recall@1"].tally.value() == 1.0
    # 36 regions of 4 texts: each text that occurs n times shares its place n ways, and n * 1/n over 4 texts is 4
    plain = found["plain/region-to-text", "recall@1"].tally.value()
    assert plain == pytest.approx(4 / 36)


def test_plain_text_to_region_ranks_all_regions(root, colours):
    found = scores(measure(root, colours.Reader(shift=1)))
    assert found["merged/text-to-region", "recall@1"].tally.value() == 0.0
    assert found["plain/text-to-region", "recall@1"].tally.value() == 0.0


def test_chance_by_hand():
    pool = Pool(np.arange(3), np.arange(3), ["a", "b"], np.array([0, 0, 1]), np.eye(3), np.eye(2, 3))
    assert find_chance(pool, "region-to-text", "merged", 1) == 0.5
    assert find_chance(pool, "region-to-text", "plain", 1) == pytest.approx(1 / 3)
    # "a" has two of three regions, "b" one: mean of 2/3, 2/3, 1/3
    assert find_chance(pool, "text-to-region", "merged", 1) == pytest.approx(5 / 9)
    assert find_chance(pool, "text-to-region", "plain", 10) == 1.0


def test_guessing_reaches_chance(tmp_path, colours):
    measured = measure(colours.write(tmp_path, images=80), colours.Guesser(seed=2))
    for score in measured.scores:
        # the four texts have one vector each, so text-to-region guesses are too few to average out
        if "text-to-region" in score.protocol and "merged" in score.protocol:
            continue
        bounds = find_interval(score.tally)
        assert bounds[0] - 0.02 <= score.chance <= bounds[1] + 0.02, score.protocol + score.metric


def test_blocks_agree_with_one_product(monkeypatch):
    rng = np.random.default_rng(0)
    text_of = rng.integers(6, size=50)
    regions, texts = rng.normal(size=(50, 8)), rng.normal(size=(6, 8))
    pool = Pool(np.arange(50), np.arange(50), list("abcdef"), text_of, regions, texts)
    ways = [(d, c, k) for d in region_retrieval.DIRECTIONS for c in region_retrieval.COUNTINGS for k in (1, 5)]
    whole = [score_recalls(pool, *way) for way in ways]
    monkeypatch.setattr(region_retrieval, "_BLOCK", 7)
    for way, expected in zip(ways, whole, strict=True):
        assert score_recalls(pool, *way) == pytest.approx(expected)


def test_the_pool_takes_one_region_for_each_text_and_no_crowd(root):
    file, folder = list_coco_files([root])[0]
    dataset = read_coco(file, folder)
    object.__setattr__(dataset.images[0], "crowd", np.array([True, False, False]))
    image = convert_annotated(dataset).images[0]
    assert image.crowds == 1
    assert choose_regions(image) == [0, 1]
    assert choose_regions(replace(image, texts=("thing", "thing"))) == [0]


def test_missing_photos_are_counted(tmp_path, colours):
    root = colours.write(tmp_path)
    (root / "coco" / "val2017" / f"{1:012d}.jpg").unlink()
    for score in measure(root, colours.Reader()).scores:
        assert score.skipped == {"photo missing": 3}
        assert score.tally.num_examples == 33


def test_no_photo_gives_a_reason(tmp_path, colours):
    root = colours.write(tmp_path, images=2)
    for photo in (root / "coco" / "val2017").iterdir():
        photo.unlink()
    measured = measure(root, colours.Reader())
    assert len(measured.scores) == 12
    assert all(s.tally is None and "none of the 2 photos can be used" in s.reason for s in measured.scores)


def test_self_check_passes():
    TASK.self_check()


def painted(colours, kinds):
    image = Image.new("RGB", colours.size, (90, 90, 90))
    for kind, box in zip(kinds, colours.places, strict=True):
        image.paste(colours.values[colours.names[kind]], box)
    return image


def grit(root, colours, count=6):
    """GRIT's rows: the colours of a caption as noun chunks; the photos lie there twice as large as the rows tell."""
    folder = root / "region_text" / "grit-mini"
    (folder / "images" / "00000").mkdir(parents=True)
    width, height = colours.size
    lines = []
    for number in range(count):
        kinds = [(number + place) % 4 for place in range(3)]
        place = folder / "images" / ("00000" if number % 2 else "") / f"{number:09d}.png"
        painted(colours, kinds).resize((2 * width, 2 * height), 0).save(place)
        caption, chunks = "", []
        for kind, (x0, y0, x1, y1) in zip(kinds, colours.places, strict=True):
            start = len(caption)
            caption += colours.names[kind].replace("_", " ")
            chunks.append([start, len(caption), x0 / width, y0 / height, x1 / width, y1 / height, 0.9])
            caption += " and "
        row = {"key": f"{number:09d}", "caption": caption + "more", "width": width, "height": height, "url": "x"}
        lines.append({**row, "noun_chunks": chunks, "ref_exps": chunks[:1]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_grits_phrases_are_two_splits_and_boxes_fit_the_photo_that_lies_there(tmp_path, colours):
    folder = grit(tmp_path, colours)
    sets = {found.split: found for found in TASK.find([tmp_path])}
    assert set(sets) == {"noun_chunks", "ref_exps"}
    for split, count in (("noun_chunks", 18), ("ref_exps", 6)):
        found = scores(TASK.run(colours.Reader(), sets[split].load(), sets[split], QUIET))
        assert len(found) == 12
        for way in ("merged/region-to-text", "merged/text-to-region"):
            assert found[way, "recall@1"].tally.value() == 1.0
            assert found[way, "recall@1"].tally.num_examples == count
        assert found["plain/region-to-text", "recall@1"].tally.value() == pytest.approx(4 / count)
    Image.new("RGB", (50, 50)).save(folder / "images" / "000000000.png")
    (folder / "images" / "00000" / "000000001.png").unlink()
    found = scores(TASK.run(colours.Reader(), sets["noun_chunks"].load(), sets["noun_chunks"], QUIET))
    assert found["merged/region-to-text", "recall@1"].skipped == {OTHER_SHAPE: 3, "photo missing": 3}


def test_region_shards_are_searched(tmp_path, colours):
    samples = []
    for number in range(5):
        kinds, buffer = [(number + place) % 4 for place in range(3)], io.BytesIO()
        painted(colours, kinds).save(buffer, "PNG")
        texts = [colours.names[kind].replace("_", " ").title() for kind in kinds]
        regions = tuple(Region(box, text) for box, text in zip(colours.places, texts, strict=True))
        crowd = Region(colours.places[0], "a crowd", extras={"crowd": True})
        own = () if number == 4 else (*regions, crowd)
        samples.append(Sample(f"{number:03d}", buffer.getvalue(), "png", *colours.size, "", own))
    write_shards(iter(samples), tmp_path / "region_text" / "mine", {"name": "mine", "kind": "regions", "made": {}}, 3)
    (found,) = TASK.find([tmp_path])
    assert (found.dataset, found.split) == ("mine", "all")
    dataset = found.load()
    assert dataset.dropped == {"sample_without_region": 1}
    told = scores(TASK.run(Lower(colours), dataset, found, QUIET))
    assert told["merged/region-to-text", "recall@1"].tally.value() == 1.0
    assert told["merged/region-to-text", "recall@1"].tally.num_examples == 12
    assert told["merged/region-to-text", "recall@1"].skipped == {"crowd": 4, "sample_without_region": 1}


class Lower:
    """The texts come lower-case."""

    name, cannot_ground = "lower", None

    def __init__(self, colours):
        self.inner = colours.Reader()

    def encode_texts(self, texts):
        assert all(text == text.lower() for text in texts)
        return self.inner.encode_texts(texts)

    def encode_regions(self, images, boxes_xyxy):
        return self.inner.encode_regions(images, boxes_xyxy)


def test_other_folders_beside_them_are_left_alone(tmp_path, colours):
    (tmp_path / "region_text" / "fgovd").mkdir(parents=True)
    (tmp_path / "region_text" / "fgovd" / "h_attributes.jsonl").write_text("{}")
    assert TASK.find([tmp_path]) == []
    buffer = io.BytesIO()
    painted(colours, [0, 1, 2]).save(buffer, "PNG")
    bare = [Sample("000", buffer.getvalue(), "png", *colours.size, "a caption", ())]
    write_shards(iter(bare), tmp_path / "pairs", {"name": "e", "kind": "pairs", "made": {}}, 3)
    with pytest.raises(ValueError, match="expected shards with regions, found none; `pairs` have no regions"):
        read_region_shards(tmp_path / "pairs")
