"""GRIT rows: spans and scaled boxes from JSON lines and Parquet, every loss counted."""

import io
import json

import pytest
from PIL import Image

from cloc.convert.__main__ import main
from cloc.convert.grit import convert_grit
from cloc.data.shards import ShardSet

CHUNK = [2, 7, 0.1, 0.2, 0.5, 0.6, 0.9]
EXPRESSION = [0, 20, 0.1, 0.2, 0.5, 0.6, 0.9]


def row(key="000000001", caption="a small dog on a mat", chunks=(CHUNK,), expressions=(EXPRESSION,), **more):
    told = {"key": key, "caption": caption, "width": 200, "height": 100, "url": "http://x/y.jpg"}
    return told | {"noun_chunks": list(chunks), "ref_exps": list(expressions)} | more


@pytest.fixture
def photos(tmp_path):
    """Photos half as large as their rows tell; the second lies in a folder of its shard, the third was cropped."""
    for place, size in (("000000001.jpg", (100, 50)), ("00000/000000002.jpg", (100, 50)), ("000000003.jpg", (50, 50))):
        path = tmp_path / "photos" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", size, (90, 10, 130)).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue())
    return tmp_path


def lines(photos, rows):
    file = photos / "rows.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in rows))
    return file


def convert(photos, file, out="out", phrases="both"):
    card = convert_grit(photos / "photos", [file], photos / out, phrases, progress=False)
    shards = ShardSet.open(photos / out)
    return card, [shards.read_sample(0, i) for i in range(shards.num_samples)]


def test_boxes_are_scaled_to_the_photo_and_phrases_are_pieces_of_the_caption(photos):
    file = lines(photos, [row(caption="  a small dog on a mat", chunks=[[4, 9, *CHUNK[2:]]], expressions=[])])
    card, (sample,) = convert(photos, file)
    (region,) = sample.regions
    assert region.box == pytest.approx((10, 10, 50, 30))
    assert (region.phrase, region.score, region.extras) == ("small", 0.9, {"span": [2, 7]})
    assert sample.caption[2:7] == "small"
    assert (sample.width, sample.height) == (100, 50)
    assert sample.image == (photos / "photos/000000001.jpg").read_bytes()
    assert sample.extras["source"] == {"dataset": "grit", "key": "000000001", "url": "http://x/y.jpg"}
    assert (card["kind"], card["read"]) == ("grounding", {"rows": 1, "regions": 1})


@pytest.mark.parametrize(
    ("phrases", "expected"),
    [
        ("noun_chunks", ["small"]),
        ("ref_exps", ["a small dog on a mat"]),
        ("both", ["small", "a small dog on a mat"]),
    ],
)
def test_either_column_or_both_can_be_taken(photos, phrases, expected):
    _, (sample,) = convert(photos, lines(photos, [row("000000002")]), phrases=phrases)
    assert [region.phrase for region in sample.regions] == expected


def test_what_cannot_be_used_is_counted_by_reason(photos):
    bad = [[2, 99, *CHUNK[2:]], [2, 7, 0.5, 0.5, 0.5, 0.9, 0.9], [2, 7, 1.5, 0, 2, 1, 0.9], [2, 7, 0.9, 0, 1.5, 1, 0.9]]
    bad += [[2, 7, float("nan"), 0, 1, 1, 0.9], [2, 7, 0, 0, 1, 1], "no", [1, 2, *CHUNK[2:]]]
    rows = [
        row(chunks=bad, expressions=[]),
        row(chunks=[CHUNK], expressions=[CHUNK]),
        row("000000003"),
        row("000000009"),
        row("../secret"),
        row(caption=None),
        '{"key": "000000',
    ]
    card, samples = convert(photos, lines(photos, rows))
    assert [sample.key for sample in samples] == ["000000000", "000000001"]
    assert [region.phrase for region in samples[0].regions] == ["small"]
    assert [region.phrase for region in samples[1].regions] == ["small"]
    assert card["dropped"] == {
        "bad_key": 1,
        "bad_region": 3,
        "bad_row": 2,
        "bad_span": 1,
        "box_cut_at_border": 1,
        "box_outside": 1,
        "empty_box": 1,
        "empty_phrase": 1,
        "image_missing": 1,
        "image_of_other_shape": 1,
        "region_of_dropped_image": 4,
        "same_region_twice": 1,
    }


def test_parquet_gives_the_same_shards_as_json_lines(photos):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [row(), row("000000002", chunks=[])]
    parquet.write_table(pyarrow.Table.from_pylist(rows), photos / "rows.parquet")
    convert(photos, lines(photos, rows), "a")
    convert(photos, photos / "rows.parquet", "b")
    assert (photos / "a/000000.tar").read_bytes() == (photos / "b/000000.tar").read_bytes()
    parquet.write_table(pyarrow.table({"key": ["1"], "text": ["x"]}), photos / "other.parquet")
    with pytest.raises(ValueError, match=r"other.parquet: .*found no column caption, noun_chunks, ref_exps"):
        convert(photos, photos / "other.parquet", "c")
    (photos / "none.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"none.parquet: expected a Parquet file of GRIT, got none"):
        convert(photos, photos / "none.parquet", "d")


def test_the_command_names_a_mistake_and_makes_nothing(photos, capsys):
    file = lines(photos, [row("000000009")])
    given = ["grit", "--images", str(photos / "photos"), "--out", str(photos / "out"), "--rows"]
    assert main([*given, str(file)]) == 2
    told = capsys.readouterr().err
    assert "rows.jsonl: expected at least one usable image, found none (1 image_missing, 2 region_of" in told
    assert not list(photos.glob("*out*"))
    lines(photos, [row()])
    assert main([*given, str(file)]) == 0
    assert "kept:    1 samples, 1 captions, 2 regions" in capsys.readouterr().out
