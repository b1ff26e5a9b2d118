"""Files of other tools: read as they are where that can be, else told what they are and which command takes them."""

import io
import json
import tarfile

import pytest
from PIL import Image

from cloc.data.shards import ShardSet
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
    with pytest.raises(DataError, match=r"another tool's JSON.*cloc\.data\.convert pairs") as error:
        ShardSet.open(img2dataset, kind).read_sample(0, 0)
    assert error.value.reason == "bad_schema"
