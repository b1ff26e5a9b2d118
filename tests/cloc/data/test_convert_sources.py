"""Photos from a folder, tars, img2dataset's outputs and Parquet: the same samples, whichever it is."""

import io
import json
import tarfile

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cloc.convert.coco import convert_coco
from cloc.convert.pairs import convert_pairs
from cloc.data.shards import ShardSet
from cloc.formats.sources import Location, Photos
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


def test_a_photo_in_two_places_is_told_by_its_folder_or_not_at_all(places, tmp_path):
    (places / "val2017").mkdir()
    (places / "val2017/000000000001.jpg").write_bytes(b"val")
    photos = Photos([places / "folder", places / "val2017"])
    assert photos.find("val2017/000000000001.jpg", "000000000001.jpg").read() == b"val"
    assert photos.find("folder/000000000001.jpg").read() == PHOTOS["000000000001.jpg"]
    with pytest.raises(DataError, match=r"000000000001.jpg: it lies in several places") as error:
        photos.find("000000000001.jpg")
    assert error.value.reason == "image_ambiguous"
    assert Photos([places / "tars", places / "val2017"]).find("val2017/000000000001.jpg").read() == b"val"
    (places / "again").mkdir()
    (places / "again/000000000002.jpg").write_bytes(PHOTOS["000000000002.jpg"])
    twice = Photos([places / "folder", places / "again"]).find("000000000002.jpg")  # the same bytes
    assert twice.read() == PHOTOS["000000000002.jpg"]


def sequences(folder, cams=("cam1", "cam2")):
    """The photos of several sequences in every way in which they may lie; one base name for all."""
    for number, cam in enumerate(cams):
        (folder / f"seq/{cam}/img1").mkdir(parents=True)
        (folder / f"seq/{cam}/img1/000001.jpg").write_bytes(jpeg(number * 90))
    names = {f"{cam}/img1/000001.jpg": jpeg(number * 90) for number, cam in enumerate(cams)}
    tar(folder / "dot.tar", {f"./{name}": data for name, data in names.items()})
    tar(folder / "lead.tar", {f"train/{name}": data for name, data in names.items()})
    for name, data in names.items():
        tar(folder / f"each/{name[:4]}.tar", {f"./{name[5:]}": data})
    rows = [{"image": {"path": f"train/{name}", "bytes": data}} for name, data in names.items()]  # bytes last
    table(folder / "lead.parquet", rows)
    (folder / "linked").mkdir()
    for cam in cams:
        (folder / f"linked/{cam}").symlink_to(folder / f"seq/{cam}")
    (folder / "linked/loop").symlink_to(folder / "linked")
    return names


PLACES = ["seq", "dot.tar", "lead.tar", "each", "lead.parquet", "linked"]


@pytest.mark.parametrize("place", PLACES)
def test_photos_of_one_base_name_are_told_by_their_folders(tmp_path, place):
    names = sequences(tmp_path)
    for lead, separator in (("", "/"), ("./", "/"), ("train/", "/"), ("", "\\")):
        photos = Photos([tmp_path / place])
        for name, data in names.items():
            assert photos.find((lead + name).replace("/", separator)).read() == data
    photos = Photos([tmp_path / place])
    assert photos.find("cam1/img1/000001.jpg").read() == names["cam1/img1/000001.jpg"]
    with pytest.raises(DataError) as error:
        Photos([tmp_path / place]).find("000001.jpg").read()
    assert error.value.reason == "image_ambiguous"
    for unknown in ("cam3/img1/000001.jpg", "cam1/img2/000001.jpg"):
        with pytest.raises(DataError, match=unknown) as error:
            photos.find(unknown).read()
        assert error.value.reason == "image_missing"


@pytest.mark.parametrize("order", [("cam1", "cam2"), ("cam2", "cam1")])
@pytest.mark.parametrize("place", ["each/cam1.tar", "seq/cam1"])
def test_where_one_sequence_is_missing_its_photos_are_not_those_of_another(tmp_path, place, order):
    names = sequences(tmp_path)
    photos = Photos([tmp_path / place])

    def ask(cam):
        return photos.find(f"{cam}/img1/000001.jpg").read()

    if order[0] == "cam1":
        assert ask("cam1") == names["cam1/img1/000001.jpg"]
        with pytest.raises(DataError, match=r"cam2/img1/000001\.jpg"):
            ask("cam2")
    else:
        ask("cam2")  # nothing tells yet that this is another
        with pytest.raises(ValueError, match=r"cam2/img1/000001.jpg and cam1/img1/000001.jpg could both only be"):
            ask("cam1")


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("sub/a.jpg", "sub\\a.jpg"),
        ("sub/a.JPG", "sub/a.jpg"),
        ("sub/a.jpeg", "sub/a.jpg"),
        ("sub/a.jpg", "./sub//a.JPEG"),
        ("sub/e\u0301.jpg", "sub/\u00e9.jpg"),  # decomposed on disk, composed in the file
        ("sub/\u00e9.jpg", "sub/e\u0301.jpg"),
        ("my photo.jpg", "my%20photo.jpg"),
        ("my%20photo.jpg", "my%20photo.jpg"),
        ("patch8/a.jpg", "images/v1/patch8/a.jpg"),
        ("deep/er/a.jpg", "a.jpg"),
        ("a.jpg", "other/folder/a.jpg"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_names_that_mean_one_photo_find_it(tmp_path, there, asked, kind):
    data = jpeg(7)
    if kind == "folder":
        (tmp_path / "x" / there).parent.mkdir(parents=True)
        (tmp_path / "x" / there).write_bytes(data)
    elif kind == "tar":
        tar(tmp_path / "x/0.tar", {there: data})
    else:
        table(tmp_path / "x/0.parquet", [{"path": there, "image": data}])
    assert Photos([tmp_path / "x"]).find(asked).read() == data


@pytest.mark.parametrize(
    "name", ["../instances.json", "/etc/passwd", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "a\0b.jpg", " "]
)
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
        Location(str(places / "parquet/0.parquet"), row=9, column="jpg").read()
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
