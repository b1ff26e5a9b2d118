"""Photos from a folder, tars, img2dataset's outputs and Parquet: the same samples, whichever it is."""

import io
import json
import tarfile

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cloc.data.convert.coco import convert_coco
from cloc.data.convert.pairs import convert_pairs
from cloc.data.convert.sources import Photos, Place
from cloc.data.shards import ShardSet
from cloc.structures import DataError


def jpeg(colour, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 200, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


PHOTOS = {f"{number:012d}.jpg": jpeg(number) for number in (1, 2, 3)}


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def table(path, rows, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **more)


@pytest.fixture
def places(tmp_path):
    """The same three photos in every way in which they may lie."""
    (tmp_path / "folder").mkdir()
    for name, data in PHOTOS.items():
        (tmp_path / "folder" / name).write_bytes(data)
    tar(tmp_path / "tar/train2017.tar", {f"train2017/{name}": data for name, data in PHOTOS.items()})
    first, *others = PHOTOS.items()
    tar(tmp_path / "tars/00000.tar", dict([first]))
    tar(tmp_path / "tars/00001.tar", {name.replace(".jpg", ".JPEG"): data for name, data in others})
    rows = [{"file_name": name, "jpg": data} for name, data in PHOTOS.items()]
    table(tmp_path / "parquet/0.parquet", rows, row_group_size=2)
    rows = [{"image": {"bytes": data, "path": name}, "label": 1} for name, data in PHOTOS.items()]
    table(tmp_path / "datasets/0.parquet", rows)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 40, "height": 30} for i in (3, 1, 2)]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2, 3)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("place", ["tar/train2017.tar", "tar", "tars", "parquet", "parquet/0.parquet", "datasets"])
def test_every_place_gives_the_shards_of_the_folder(places, place):
    convert_coco(places / "folder", places / "instances.json", places / "whole", progress=False)
    convert_coco(places / place, places / "instances.json", places / "out", progress=False)
    assert (places / "out/000000.tar").read_bytes() == (places / "whole/000000.tar").read_bytes()
    shards = ShardSet.open(places / "out")
    assert [shards.read_sample(0, i).image for i in range(3)] == list(PHOTOS.values())


def test_the_first_place_that_has_a_photo_wins_and_folders_are_told_by_their_name(places, tmp_path):
    (places / "val2017").mkdir()
    (places / "val2017/000000000001.jpg").write_bytes(b"val")
    photos = Photos([places / "folder", places / "val2017"])
    assert photos.find("000000000001.jpg").read() == PHOTOS["000000000001.jpg"]
    assert photos.find("val2017/000000000001.jpg", "000000000001.jpg").read() == b"val"
    assert Photos([places / "tars", places / "val2017"]).find("val2017/000000000001.jpg").read() == b"val"


@pytest.mark.parametrize("name", ["../instances.json", "/etc/passwd", "a/../../x.jpg", "a\0b.jpg", " "])
def test_names_that_climb_are_refused(places, name):
    for place in ("folder", "tars"):
        with pytest.raises(DataError, match="expected a file name inside the folder of the photos") as error:
            Photos([places / place]).find(name)
        assert error.value.reason == "bad_file_name"


def test_missing_photos_are_told_apart_from_unreadable_ones(places):
    missing = ["nowhere.jpg", "x" * 300 + ".jpg", "000000000001.jpg/more.jpg"]
    for name in missing:
        with pytest.raises(DataError) as error:
            Photos([places / "folder"]).find(name).read()
        assert error.value.reason == "image_missing"
    shard = places / "tars/00000.tar"
    place = Photos([places / "tars"]).find("000000000001.jpg")
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(DataError) as error:
        place.read()
    assert error.value.reason == "image_unreadable"
    with pytest.raises(DataError) as error:
        Place(str(places / "parquet/0.parquet"), row=9, column="jpg").read()
    assert error.value.reason == "image_missing"


def test_places_that_are_none_are_refused(places):
    with pytest.raises(ValueError, match="nowhere: expected the folder of the photos, found no folder"):
        Photos([places / "nowhere"])
    with pytest.raises(ValueError, match="--images: expected at least one folder, tar or Parquet file"):
        Photos([])
    (places / "bad.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(ValueError, match=r"bad.parquet: expected a Parquet file, got none"):
        Photos([places / "bad.parquet"])


def test_img2dataset_as_files_tars_and_parquet_gives_the_same_pairs(tmp_path):
    names = ["000000000", "000000001"]
    photos = {name: jpeg(i * 50) for i, name in enumerate(names)}
    listed = [{"url": "http://a/b.jpg", "caption": f"photo {name}", "key": name} for name in names]
    for name, data in photos.items():
        place = tmp_path / "files/00000"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.jpg").write_bytes(data)
        (place / f"{name}.txt").write_text(f"photo {name}")
        (place / f"{name}.json").write_text("{}")
    table(tmp_path / "files/00000.parquet", listed)  # the list of addresses, without photos
    members = [(f"{n}.{e}", data) for n in names for e, data in (("jpg", photos[n]), ("json", b"{}"))]
    tar(tmp_path / "webdataset/00000.tar", dict(members) | {f"{n}.txt": f"photo {n}".encode() for n in names})
    table(tmp_path / "webdataset/00000.parquet", listed)
    rows = [row | {"jpg": photos[row["key"]]} for row in listed]
    table(tmp_path / "parquet/00000.parquet", [*rows, listed[0] | {"key": "000000002"}])
    found = {}
    for place in ("files", "webdataset", "parquet"):
        card = convert_pairs(tmp_path / place, tmp_path / f"out-{place}", progress=False)
        shards = ShardSet.open(tmp_path / f"out-{place}")
        read = [shards.read_sample(0, i) for i in range(shards.num_samples)]
        found[place] = [(sample.key, sample.image, sample.caption) for sample in read]
        assert card["dropped"] == ({"image_missing": 1} if place == "parquet" else {})
    assert found["files"] == found["webdataset"] == found["parquet"]
    table(tmp_path / "mute/00000.parquet", [{"jpg": jpeg(1)}])
    with pytest.raises(ValueError, match=r"expected a column of texts \(caption, txt, text\), found none"):
        convert_pairs(tmp_path / "mute", tmp_path / "out-mute", progress=False)
