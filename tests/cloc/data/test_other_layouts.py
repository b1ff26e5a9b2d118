"""Files of other tools: read as they are where that can be, else told what they are and which command takes them."""

import io
import json
import tarfile

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cloc.convert.__main__ import main
from cloc.convert.subcommands import FORMATS
from cloc.data.shards import ShardSet
from cloc.data.tables import open_samples
from cloc.formats.layouts import LAYOUTS, list_layouts
from cloc.structures import DataError


def jpeg(colour, size=(60, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, 20, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.fixture
def img2dataset(tmp_path):
    told = {"caption": "picture", "url": "http://x.org", "status": "success", "width": 9, "height": 9}
    members = {}
    for k in range(3):
        members[f"{k:09d}.jpg"] = jpeg(k)
        members[f"{k:09d}.json"] = json.dumps(told).encode()
        if k:  # the first has its caption in the JSON alone
            members[f"{k:09d}.txt"] = f"picture {k}".encode()
    tar(tmp_path / "00000.tar", members)
    return tmp_path


def test_img2datasets_tars_train_as_pairs(img2dataset):
    shards = ShardSet.open(img2dataset, "pairs")
    read = [shards.read_sample(0, i) for i in range(3)]
    assert [sample.caption for sample in read] == ["picture", "picture 1", "picture 2"]
    assert {(sample.width, sample.height) for sample in read} == {(60, 40)}  # of the photo, not of the JSON


@pytest.mark.parametrize("kind", ["regions", "detection", "grounding", None])
def test_for_other_kinds_the_message_names_the_converter(img2dataset, kind):
    with pytest.raises(DataError, match=r"another tool's JSON.*cloc\.convert pairs") as error:
        ShardSet.open(img2dataset, kind).read_sample(0, 0)
    assert error.value.reason == "bad_schema"


def test_the_list_names_every_converter(capsys):
    told = list_layouts()
    for name in set(FORMATS) - {"objects365"}:  # COCO's layout
        assert f"  {name} --" in told
    assert {one.command.split(" ")[0] for one in LAYOUTS} - {""} <= set(FORMATS)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    "regions",
    [
        [{"phrase": "cup", "box": [1, 1, 9, 9]}, {"phrase": "dog", "box": [2, 2, 9, 9]}],
        {"phrase": ["cup", "dog"], "box": [[1, 1, 9, 9], [2, 2, 9, 9]]},
        json.dumps([{"box": [1, 1, 9, 9], "phrase": "cup"}, {"box": [2, 2, 9, 9], "phrase": "dog"}]),
    ],
)
@pytest.mark.parametrize("image", [{"path": "a.jpg", "bytes": jpeg(3)}, {"bytes": jpeg(3), "path": None}, jpeg(3)])
def test_tables_are_read_whatever_the_order_of_their_fields(tmp_path, regions, image):
    rows = [{"regions": regions, "image": image, "caption": "a cup"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "0.parquet")
    sample = open_samples(tmp_path / "0.parquet").read_sample(0, 0)
    assert [(r.phrase, list(r.box)) for r in sample.regions] == [("cup", [1, 1, 9, 9]), ("dog", [2, 2, 9, 9])]
    assert sample.image == jpeg(3)


def test_a_table_of_another_layout_is_told_what_to_do(tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist([{"jpg": jpeg(3), "caption": "a"}]), tmp_path / "0.parquet")
    with pytest.raises(ValueError, match=r"got jpg, caption; rename them, or make shards: .*convert pairs"):
        open_samples(tmp_path / "0.parquet")


def test_pairs_in_a_linked_folder_are_found(tmp_path):
    (tmp_path / "far/sub").mkdir(parents=True)
    (tmp_path / "far/sub/a.jpg").write_bytes(jpeg(1))
    (tmp_path / "far/sub/a.txt").write_text("a cup")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "far")
    assert main(["pairs", "--images", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert ShardSet.open(tmp_path / "out").num_samples == 1


def test_a_file_that_a_converter_cannot_use_is_told_which_one_can(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jpg").write_bytes(jpeg(1))
    content = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 1, 2, 2], "category_id": 1}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(content))
    for name, flag in (("odvg", "--annotations"), ("grit", "--rows"), ("llava", "--conversations")):
        given = [name, "--images", str(tmp_path / "in"), flag, str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "o")]
        assert main(given) == 2
        assert "it looks like a COCO instances file: python -m cloc.convert coco" in capsys.readouterr().err
