"""Boxes given by their corners where x, y, width, height is expected are recognised by what they violate."""

import json

import numpy as np
import pytest

from cloc.data.formats import corners, read_coco, read_lvis
from cloc.data.formats.annotated_stream import AnnotatedStream
from cloc.data.formats.corners import CornerWatch

MESSAGE = r"expected bbox as x, y, width, height, but \d+ of the first 40 boxes end outside .* corners \(xyxy\)"


def instances(folder, as_corners, shift=0.0):
    random = np.random.default_rng(0)
    low, side = random.uniform(0, 40, (40, 2)), random.uniform(5, 20, (40, 2))
    second = low + side if as_corners else side
    boxes = np.concatenate([low + shift, second], axis=1).tolist()
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "coco_url": "http://x/val2017/1.jpg", "width": 60, "height": 60}],
        "annotations": [{"id": i + 1, "image_id": 1, "category_id": 2, "bbox": box} for i, box in enumerate(boxes)],
        "categories": [{"id": 2, "name": "cup", "synset": "cup.n.01", "frequency": "f", "def": "a cup"}],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file


READERS = {
    "coco": lambda file: read_coco(file, file.parent),
    "lvis": lambda file: read_lvis(file, [file.parent]),
    "stream": lambda file: list(AnnotatedStream(file, "a COCO instances file")),
}


@pytest.mark.parametrize("name", READERS)
def test_corners_are_named(name, tmp_path):
    with pytest.raises(ValueError, match=MESSAGE):
        READERS[name](instances(tmp_path, as_corners=True))
    assert READERS[name](instances(tmp_path, as_corners=False)) is not None


def test_a_few_boxes_beyond_the_border_are_not_corners(tmp_path):
    found = read_coco(instances(tmp_path, as_corners=False, shift=15.0), tmp_path)
    assert 0 < found.dropped["box_cut_at_border"] < 20
    watch = CornerWatch("few.json")
    watch.see([{"image_id": 1, "bbox": [5, 5, 8, 8]}] * (corners.FEWEST - 1), {1: (10, 10)})
    watch.refuse()
    watch.see([{"image_id": 1, "bbox": [5, 5, 8, 8]}, {"image_id": 1, "bbox": None}, {"image_id": 9}], {1: (10, 10)})
    with pytest.raises(ValueError, match=r"few\.json: .* 8 of the first 8 boxes"):
        watch.refuse()


def test_a_long_file_is_refused_at_its_start():
    watch = CornerWatch("long.json")
    with pytest.raises(ValueError, match="of the first 1,000 boxes"):
        watch.see(iter([{"image_id": 1, "bbox": [5, 5, 8, 8]}] * 2000), {1: (10, 10)})
