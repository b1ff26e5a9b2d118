import io
import json

import datasets
import pytest
from PIL import Image

from cloc.data import tables
from cloc.data.tables import open_samples
from cloc.structures import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Parquet is read through one, which else lies in the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(colour, size=(40, 30), kind="JPEG"):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, kind)
    return data.getvalue()


def rows():
    regions = [{"box": [1.0, 2.0, 11.0, 12.0], "phrase": "a ring"}]
    return {
        "image": [{"bytes": encoded("red"), "path": None}, {"bytes": encoded("blue", kind="PNG"), "path": None}],
        "caption": ["a red thing", ""],
        "regions": [regions, []],
    }


def test_saved_dataset_and_parquet_give_the_same_samples(tmp_path):
    table = datasets.Dataset.from_dict(rows()).cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    table.to_parquet(str(tmp_path / "parquet" / "part-0.parquet"))
    for place in (tmp_path / "saved", tmp_path / "parquet", tmp_path / "parquet" / "part-0.parquet"):
        samples = open_samples(place)
        assert samples.num_samples == 2
        first, second = samples.read_sample(0, 0), samples.read_sample(0, 1)
        assert first.image == rows()["image"][0]["bytes"]  # never re-encoded
        assert (first.image_format, second.image_format) == ("jpg", "png")
        assert (first.width, first.height, first.caption) == (40, 30, "a red thing")
        assert first.regions[0].box == (1.0, 2.0, 11.0, 12.0)
        assert first.regions[0].phrase == "a ring"
        assert second.caption == ""
        assert second.regions == ()


def test_regions_as_json_text_and_plain_bytes(tmp_path):
    told = {**rows(), "image": [row["bytes"] for row in rows()["image"]]}
    told["regions"] = [json.dumps(regions) for regions in told["regions"]]
    datasets.Dataset.from_dict(told).save_to_disk(str(tmp_path / "saved"))
    assert open_samples(tmp_path / "saved").read_sample(0, 0).regions[0].phrase == "a ring"


def test_rows_are_dealt_to_virtual_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 2)
    images = [encoded((10 * n, 0, 0)) for n in range(5)]
    datasets.Dataset.from_dict({"image": images, "key": [f"k{n}" for n in range(5)]}).save_to_disk(str(tmp_path / "s"))
    samples = open_samples(tmp_path / "s")
    assert samples.counts == (2, 2, 1)
    assert [samples.read_sample(s, i).key for s, n in enumerate(samples.counts) for i in range(n)] == [
        f"k{n}" for n in range(5)
    ]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("image", b"no image", "bad_image"), ("regions", "[{", "bad_json")],
)
def test_a_bad_row_is_a_data_error(tmp_path, column, value, reason):
    told = {"image": [encoded("red")], "regions": ["[]"], **{column: [value]}}
    datasets.Dataset.from_dict(told).save_to_disk(str(tmp_path / "s"))
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path / "s").read_sample(0, 0)
    assert caught.value.reason == reason


def test_a_table_without_images_is_refused(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="expected a column 'image'"):
        open_samples(tmp_path / "s")


@pytest.mark.parametrize("damage", ["cut", "pages", "empty"])
def test_a_damaged_table_is_one_line(tmp_path, damage):
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(rows()).to_parquet(str(file))
    data = file.read_bytes()
    whole = {"cut": data[:-100], "pages": data[:40] + bytes(200) + data[240:], "empty": b""}
    file.write_bytes(whole[damage])
    with pytest.raises(ValueError, match=r"a\.parquet: expected a table that `datasets` reads, got .*; copy it again"):
        open_samples(file)
