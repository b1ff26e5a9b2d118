"""What a conversion costs: photos of the right kind, the same members on both sides, memory apart."""

import json
import tarfile

import pytest
from PIL import Image

from benchmarks.speed import conversion as conversion_cost
from benchmarks.speed import conversion_memory
from benchmarks.speed.conversion import convert, copy_members, write_instances, write_photos
from benchmarks.speed.conversion_memory import Peak, measure_memory


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Six photos and their annotations: (photos, file)."""
    for name, value in {"IMAGES": 6, "SHARD": 2, "SIDES": (64, 48), "DIFFERENT": 2, "REPEATS": 1}.items():
        monkeypatch.setattr(conversion_cost, name, value)
    monkeypatch.setattr(conversion_cost, "count_cores", lambda: 1)
    return tmp_path / "photos", tmp_path / "instances.json"


def test_both_sides_hold_the_same_members(small, tmp_path, monkeypatch):
    photos, file = small
    monkeypatch.setattr(conversion_cost, "SIDES", (640, 480))
    size = write_photos(photos, 6)
    assert 100_000 < size / 6 < 200_000  # COCO's photos have 143 kB on average
    assert Image.open(photos / "000000000006.jpg").size == (640, 480)
    write_instances(file, 6)
    assert 2_000 < file.stat().st_size / 6 < 5_000  # COCO's file has 3.8 kB an image
    card = convert(photos, file, tmp_path / "out", 1)
    assert card["counts"]["regions"] == 6 * conversion_cost.BOXES
    assert len(card["shards"]) == 3
    copy_members(tmp_path / "out", tmp_path / "copy", 1)
    for shard in card["shards"]:
        with (
            tarfile.open(tmp_path / "out" / shard["file"]) as one,
            tarfile.open(tmp_path / "copy" / shard["file"]) as two,
        ):
            assert [(m.name, one.extractfile(m).read()) for m in one] == [
                (m.name, two.extractfile(m).read()) for m in two
            ]


def test_a_conversion_that_loses_something_is_no_measurement(small, tmp_path, monkeypatch):
    photos, file = small
    monkeypatch.setattr(conversion_cost, "SIDES", (640, 480))
    write_photos(photos, 5)
    write_instances(file, 6)
    with pytest.raises(RuntimeError, match=r"the conversion lost something: .*image_missing"):
        convert(photos, file, tmp_path / "out", 1)


def test_rows(small, monkeypatch):
    monkeypatch.setattr(conversion_cost, "SIDES", (640, 480))
    scores = {score.metric: score for score in conversion_cost.measure_conversion("s")}
    assert set(scores) == {
        "conversion_over_tarfile", "conversion_over_tarfile_processor", "conversion_images_per_second",
        "conversion_mb_per_second",
    }  # fmt: skip
    assert scores["conversion_over_tarfile"].value > 0
    assert "/7-boxes-an-image/1-processes/" in scores["conversion_over_tarfile"].protocol


def test_memory_rows_compare_a_whole_file_with_half_of_it(monkeypatch):
    asked = []

    def apart(work, images):
        asked.append(images)
        return Peak(images / 50, images, 10.0 + images / 100)

    monkeypatch.setattr(conversion_memory, "_apart", apart)
    scores = {score.metric: score.value for score in measure_memory("s", 1.0)}
    assert asked[0] == asked[1] // 2
    assert 30 < asked[1] < 80  # about 18 kB an image
    assert scores["conversion_memory_growth"] == pytest.approx(
        scores["conversion_mib_whole"] / scores["conversion_mib_half"]
    )


def test_one_conversion_in_this_process_tells_its_peak(tmp_path):
    write_instances(tmp_path / "some.json", 4, 10, lambda number: "photo.jpg")
    assert len(json.loads((tmp_path / "some.json").read_text())["annotations"]) == 4 * conversion_cost.BOXES
    (tmp_path / "photos").mkdir()
    Image.new("RGB", conversion_cost.SIDES).save(tmp_path / "photos" / "photo.jpg")
    assert conversion_memory._extra_mib(tmp_path / "photos", tmp_path / "some.json", tmp_path / "out") >= 0
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]["samples"] == 4
