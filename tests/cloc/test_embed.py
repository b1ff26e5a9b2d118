import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from cloc import disk
from cloc.embed import __main__ as embed
from cloc.embed import embedding
from cloc.embed.best_texts import read_texts
from cloc.embed.prompt_boxes import PromptBoxes, match, read_prompt_boxes
from cloc.embed.vector_file import VectorFile, vector_schema
from cloc.images import read_photo

BOXES = {"a.png": [[5, 5, 30, 25], [0, 0, 50, 30]], "b.png": [[2, 3, 20, 20]], "c.png": []}
SIZES = {"a.png": (50, 30), "b.png": (30, 44), "c.png": (32, 32)}


@pytest.fixture
def pictures(spine_picture, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        spine_picture(*size, seed=seed).save(folder / name)
    return folder


@pytest.fixture
def boxes_file(tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text("".join(json.dumps({"image": name, "boxes": boxes}) + "\n" for name, boxes in BOXES.items()))
    return file


CACHE: dict = {}


@pytest.fixture
def export(spine_export):
    """One export for all tests, which only read it."""
    if "cloc" not in CACHE:
        CACHE["cloc"] = spine_export()
    return CACHE["cloc"]


@torch.no_grad()
def test_vectors_are_the_models_own(export, pictures, boxes_file, spine_picture, tmp_path, capsys):
    out = tmp_path / "deep" / "v.parquet"
    call = [str(pictures), "--boxes", str(boxes_file), "--out", str(out), "--model", str(export), "--batch-size", "2"]
    assert embed.main(call) == 0
    assert f"wrote {out}: 6 vectors of 3 images" in capsys.readouterr().out
    rows = pq.read_table(out).to_pylist()
    assert [(row["image"].rpartition("/")[2], row["kind"], row["region"]) for row in rows] == [
        ("a.png", "image", None),
        ("a.png", "region", 0),
        ("a.png", "region", 1),
        ("b.png", "image", None),
        ("b.png", "region", 0),
        ("c.png", "image", None),
    ]
    assert [rows[1][name] for name in ("x0", "y0", "x1", "y1")] == [5, 5, 30, 25]
    assert rows[0]["x0"] is None
    model, processor = AutoModel.from_pretrained(export).eval(), AutoProcessor.from_pretrained(export)
    inputs = processor(images=[spine_picture(50, 30, seed=0)], boxes=[BOXES["a.png"]])
    theirs = torch.tensor([row["embedding"] for row in rows[:3]])
    torch.testing.assert_close(theirs[:1], model.get_image_features(inputs["pixel_values"]))
    torch.testing.assert_close(theirs[1:], model.get_region_features(inputs["pixel_values"], inputs["boxes"])[0])
    metadata = pq.read_schema(out).metadata
    assert metadata[b"model_sha256"].decode() == json.loads((export / "export.json").read_text())["model_sha256"]
    assert [p.name for p in out.parent.iterdir()] == ["v.parquet"]


def test_an_image_is_encoded_once(export, spine_picture):
    model, processor = AutoModel.from_pretrained(export).eval(), AutoProcessor.from_pretrained(export)
    seen = []
    model.vision.tower.register_forward_hook(lambda module, inputs, output: seen.append(len(output.pooler_output)))
    many = [np.array([[i, i, i + 9.0, i + 9.0] for i in range(20)]), np.zeros((0, 4))]
    whole, regions = embedding.embed_batch(model, processor, [spine_picture(40, 40), spine_picture(20, 40)], many)
    assert seen == [2]
    assert whole.shape == (2, 16)
    assert [tuple(r.shape) for r in regions] == [(20, 16), (0, 16)]
    torch.testing.assert_close(regions[0].norm(dim=1), torch.ones(20))


def test_a_stopped_call_goes_on(export, pictures, boxes_file, tmp_path, monkeypatch):
    out = tmp_path / "v.parquet"
    call = [str(pictures), "--boxes", str(boxes_file), "--out", str(out), "--model", str(export), "--batch-size", "1"]
    whole, calls = embedding.embed_part, []

    def stops(model, processor, images, boxes, texts):
        calls.append([path.name for path in images])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(model, processor, images, boxes, texts)

    monkeypatch.setattr(embedding, "embed_part", stops)
    assert embed.main(call) == 130
    assert not out.exists()
    assert embed.main(call) == 0
    assert calls == [["a.png"], ["b.png"], ["b.png"], ["c.png"]]
    assert len(pq.read_table(out)) == 6


def test_parts_of_another_call_are_refused(export, pictures, boxes_file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.parquet"
    call = [str(pictures), "--out", str(out), "--model", str(export)]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "embed_part", stop)
    assert embed.main([*call, "--boxes", str(boxes_file)]) == 130
    assert embed.main(call) == 2
    assert "holds parts of another call (other images, boxes, model or batch size); delete" in capsys.readouterr().err


def test_a_broken_picture_is_left_out_and_said(export, pictures, tmp_path, capsys):
    (pictures / "d.png").write_bytes(b"no picture")
    out = tmp_path / "v.parquet"
    assert embed.main([str(pictures), "--out", str(out), "--model", str(export)]) == 0
    told = capsys.readouterr().out
    assert "3 vectors of 3 images" in told
    assert "left out or cut, by reason: image cannot be decoded 1; first image: " in told
    assert "d.png" not in str(pq.read_table(out).column("image").to_pylist())


def coco(name, width, height, boxes):
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    images = [{"id": 1, "file_name": name, "width": width, "height": height}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


def test_a_coco_file_gives_boxes_as_well(export, pictures, tmp_path, capsys):
    file, out = tmp_path / "boxes.json", tmp_path / "v.parquet"
    file.write_text(json.dumps(coco("a.png", 50, 30, [[5, 5, 25, 20], [1, 1, 0, 4]])))
    call = [str(pictures), "--boxes", str(file), "--out", str(out), "--model", str(export)]
    assert embed.main(call) == 0
    assert [r["x1"] for r in pq.read_table(out).to_pylist() if r["kind"] == "region"] == [30]
    assert "left out or cut, by reason: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"image": "z.png", "boxes": []}], r"1 of its 1 images are not among the 3 given \(first: z\.png\); give the"),
        (
            [{"image": "a.png", "boxes": [[0, 0, 60, 20]]}],
            r"box 0 \[0\.0, 0\.0, 60\.0, 20\.0\] lies outside its 50 x 30",
        ),
        ([{"image": "a.png", "boxes": [[0, 0, 9, 9], [float("nan"), 0, 5, 5]]}], r"box 1 \[nan, .* or has no area"),
        ([{"image": "a.png", "boxes": [[30, 20, 5, 5]]}], r"box 0 .* has no area; expected .* x0 < x1 and y0 < y1"),
        (
            [{"image": "a.png", "boxes": [], "width": 5, "height": 3}],
            r"a\.png: expected 5 x 3 pixels, got 50 x 30",
        ),
        ([{"image": "a.png", "boxes": []}] * 2, r"boxes\.jsonl:2: a\.png has a line already"),
        ([{"picture": "a.png"}], r"boxes\.jsonl:1: expected \{\"image\": .*KeyError: 'image'"),
        ([{"image": "a.png", "boxes": [[1, 2]]}], r"boxes\.jsonl:1: expected \{\"image\""),
    ],
)
def test_boxes_that_do_not_belong_are_refused(lines, said, export, pictures, tmp_path, capsys):
    file = tmp_path / "boxes.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    call = [str(pictures), "--boxes", str(file), "--out", str(tmp_path / "v.parquet"), "--model", str(export)]
    assert embed.main(call) == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == 1
    with pytest.raises(ValueError, match=said):
        raise ValueError(told)


def test_a_boxes_file_that_is_no_text_is_named(export, pictures, tmp_path, capsys):
    (tmp_path / "boxes.jsonl").write_bytes(b"\xf1\xff")
    call = [str(pictures), "--boxes", str(tmp_path / "boxes.jsonl"), "--out", str(tmp_path / "v.parquet")]
    assert embed.main([*call, "--model", str(export)]) == 2
    assert "boxes.jsonl:1: expected a line of --boxes" in capsys.readouterr().err


def test_the_same_name_in_two_folders_needs_its_folder(export, pictures, spine_picture, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    spine_picture(50, 30).save(tmp_path / "more" / "a.png")
    file = tmp_path / "boxes.jsonl"
    call = [str(pictures), str(tmp_path / "more"), "--boxes", str(file), "--out", str(tmp_path / "v.parquet")]
    call += ["--model", str(export)]
    file.write_text(json.dumps({"image": "a.png", "boxes": []}))
    assert embed.main(call) == 2
    assert "name it with its folder" in capsys.readouterr().err
    file.write_text(json.dumps({"image": "more/a.png", "boxes": [[1, 1, 9, 9]]}))
    assert embed.main(call) == 0
    rows = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["image"] for row in rows if row["kind"] == "region"] == [str(tmp_path / "more" / "a.png")]


def test_what_cannot_be_done_is_said_in_a_line(spine_export, pictures, boxes_file, tmp_path, capsys):
    clip = spine_export("clip", objective="clip")
    out = ["--out", str(tmp_path / "v.parquet"), "--model", str(clip)]
    assert embed.main([str(pictures), "--boxes", str(boxes_file), *out]) == 2
    assert "no Prompter (objective clip), so it has no region vectors; leave --boxes out" in capsys.readouterr().err
    assert embed.main([str(tmp_path / "none"), *out]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err
    assert embed.main([str(pictures), *out]) == 0
    assert embed.main([str(pictures), *out]) == 2
    assert "already there; give another file" in capsys.readouterr().err


def test_pictures_prepared_in_another_way_than_in_training_are_refused(export, pictures, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(export, copy)
    for file in copy.glob("*processor_config.json"):
        text = file.read_text()
        changed = json.loads(text)
        changed.get("image_processor", changed)["image_mean"] = [0.1, 0.2, 0.3]
        file.write_text(json.dumps(changed))
    assert embed.main([str(pictures), "--out", str(tmp_path / "v.parquet"), "--model", str(copy)]) == 2
    assert "the reference picture's embedding differs by" in capsys.readouterr().err
    assert not (tmp_path / "v.parquet").exists()


def test_a_cut_export_and_a_file_above_the_output_are_one_line(export, pictures, tmp_path, capsys):
    call = [str(pictures), "--out", str(tmp_path / "v.parquet"), "--model"]
    cut = shutil.copytree(export, tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert embed.main([*call, str(cut)]) == 2
    weights.unlink()
    assert embed.main([*call, str(cut)]) == 2
    told = capsys.readouterr().err
    assert told.count(f"error: {cut}: weights or processor cannot be read (") == 2
    assert told.count("\n") == 2
    (tmp_path / "file").write_text("x")
    below = tmp_path / "file" / "v.parquet"
    assert embed.main([str(pictures), "--out", str(below), "--model", str(export)]) == 2
    assert f"error: --out {below}: its folder cannot be made (" in capsys.readouterr().err


def rows_in(file):
    """The rows of a file of any format, in Parquet's form."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines))
    with np.load(file, allow_pickle=False) as arrays:
        return [{name: arrays[name][row] for name in arrays} for row in range(len(arrays["image"]))]


def test_every_ending_is_its_format_and_keeps_ids_categories_and_best_texts(export, pictures, tmp_path):
    file, found = tmp_path / "boxes.json", {}
    annotations = coco("a.png", 50, 30, [[5, 5, 25, 20], [1, 1, 20, 4]])
    for number, entry in enumerate(annotations["annotations"]):
        entry["id"] = 900 + number
    file.write_text(json.dumps(annotations))
    for ending in ("parquet", "csv", "jsonl", "npz"):
        out = tmp_path / f"v.{ending}"
        call = [str(pictures / "a.png"), "--boxes", str(file), "--out", str(out), "--model", str(export)]
        assert embed.main([*call, "--texts", "a cat, a dog,a red square", "--best", "2"]) == 0
        found[ending] = rows_in(out)
    whole = found["parquet"]
    assert [row["annotation_id"] for row in whole] == [None, 900, 901]
    assert [row["category"] for row in whole] == [None, "cat", "cat"]
    model, processor = AutoModel.from_pretrained(export).eval(), AutoProcessor.from_pretrained(export)
    tokens = processor(text=["a cat", "a dog", "a red square"])
    with torch.no_grad():
        texts = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
    cosines = (texts @ torch.tensor(whole[1]["embedding"])).tolist()
    assert whole[1]["best_scores"] == pytest.approx(sorted(cosines, reverse=True)[:2], abs=1e-6)
    names = ["a cat", "a dog", "a red square"]
    assert whole[1]["best_texts"] == sorted(names, key=lambda name: -cosines[names.index(name)])[:2]
    for number, row in enumerate(whole):
        line, record, arrays = found["jsonl"][number], found["csv"][number], found["npz"][number]
        assert line == {name: value for name, value in row.items() if value is not None}
        assert [float(record[f"e{place}"]) for place in range(16)] == row["embedding"]
        assert (record["annotation_id"], record["text_1"]) == (str(row["annotation_id"] or ""), row["best_texts"][0])
        assert float(record["score_2"]) == row["best_scores"][1]
        assert arrays["embedding"].tolist() == row["embedding"]
        assert int(arrays["annotation_id"]) == (-1 if number == 0 else row["annotation_id"])
        assert arrays["best_texts"].tolist() == row["best_texts"]
        if number:
            assert arrays["boxes_xyxy"].tolist() == [row[name] for name in ("x0", "y0", "x1", "y1")]


@pytest.mark.parametrize("name", ["v", "v.tsv", "v.parquet.gz", "v.npy", ".csv"])
def test_another_ending_is_refused_before_anything_is_loaded(name, pictures, tmp_path, capsys):
    call = [str(pictures), "--out", str(tmp_path / name), "--model", "nowhere"]
    assert embed.main(call) == 2
    assert "expected a name that ends with .parquet, .csv, .jsonl, .npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "told"),
    [(" , ,", "expected texts, got none"), ("cat, dog,cat", "'cat' stands there more than once")],
)
def test_texts_that_cannot_be_meant_are_refused(texts, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        read_texts(texts)
    file = tmp_path / "texts.txt"
    file.write_text("a cat, asleep\n\n  a   dog \n")
    assert read_texts(str(file)) == ["a cat, asleep", "a dog"]
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="one text a line"):
        read_texts(str(file))


def test_two_calls_with_one_output_do_not_meet(export, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(disk, "ORPHANS_LAST", 0.0)
    out = tmp_path / "v.csv"
    with disk.locked(tmp_path / "v.csv.parts", "unheard"):
        assert embed.main([str(pictures), "--out", str(out), "--model", str(export)]) == 2
    assert "another process is writing it" in capsys.readouterr().err


def test_the_told_size_decides_the_frame_of_boxes_and_repeated_names_are_refused(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / "phone.jpg"
    Image.new("RGB", (50, 30)).save(photo, exif=exif)
    tall, wide = [[0.0, 0.0, 30.0, 50.0]], [[0.0, 0.0, 50.0, 30.0]]
    for boxes, size, right in ((tall, None, (30, 50)), (tall, (30, 50), (30, 50)), (wide, (50, 30), (50, 30))):
        told = PromptBoxes(np.array(boxes), size)
        image = read_photo(photo, told.size)
        assert image.size == right
        told.check("phone.jpg", *image.size)
    with pytest.raises(ValueError, match=r"they would fit 50 x 30: boxes without a size are in the frame that viewers"):
        PromptBoxes(np.array(wide)).check("phone.jpg", *read_photo(photo).size)
    entries = [{"id": number, "file_name": "a.png", "width": 50, "height": 30} for number in (1, 2)]
    found = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": entries, "annotations": found, "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(ValueError, match=r"two of its images have the file_name a\.png; name each with its folder"):
        read_prompt_boxes(file)


def test_names_match_by_their_whole_normalised_path(tmp_path):
    images = [tmp_path / "cam1" / "1.jpg", tmp_path / "cam2" / "1.jpg", tmp_path / "2.jpg"]
    told, file = PromptBoxes(np.zeros((0, 4))), Path("boxes.jsonl")
    for name in ("cam2/1.jpg", "cam2\\1.jpg", "./cam2/1.jpg", "cam1/../cam2/1.jpg", str(images[1])):
        assert match({name: told}, images, file) == {images[1]: told}
    for name in ("cam3/1.jpg", "x2.jpg", "", ".", "/"):
        with pytest.raises(ValueError, match=r"1 of its 1 images are not among the 3 given"):
            match({name: told}, images, file)
    with pytest.raises(ValueError, match=r"1\.jpg fits .* name it with its folder"):
        match({"1.jpg": told}, images, file)
    with pytest.raises(ValueError, match=r"2\.jpg and \./2\.jpg are both .*2\.jpg; give all boxes"):
        match({"2.jpg": told, "./2.jpg": told}, images, file)


@pytest.mark.parametrize(
    "line",
    ['{"image": 3, "boxes": []}', '{"image": "a", "boxes": [], "width": 1e400, "height": 3}', "[" * 5000, "[1]", "3",
     '{"image": "a", "boxes": {"x": 1}}',
     '{"image": "a", "boxes": [[1, 2, "x", 4]]}', '{"image": "\\ud800", "boxes": []}'],
)  # fmt: skip
def test_a_line_that_is_none_is_named(line, tmp_path):
    file = tmp_path / "boxes.jsonl"
    file.write_text("\n" + line)
    with pytest.raises(ValueError, match=r"boxes\.jsonl:2: expected [^\n]*\Z"):
        read_prompt_boxes(file)


def test_a_first_part_without_rows_leaves_the_header_whole(tmp_path):
    schema = vector_schema(2, {}, texts=True)
    row = {"image": "a", "kind": "image", "best_texts": ["x"], "best_scores": [1.0], "embedding": [0.5, 0.5]}
    file = VectorFile(tmp_path / "v.csv", schema, {})
    file.write(0, [], {"bad.jpg": "unreadable"})
    file.write(1, [row], {})
    assert file.finish(2) == 1
    with (tmp_path / "v.csv").open(newline="") as lines:
        (found,) = csv.DictReader(lines)
    assert (found["text_1"], found["score_1"], found["e1"]) == ("x", "1.0", "0.5")


def test_a_box_without_an_id_gets_none_made_up(tmp_path):
    content = coco("a.png", 50, 30, [[5, 5, 25, 20], [1, 1, 20, 4], [2, 2, 20, 4]])
    for entry, number in zip(content["annotations"], (7, None, 7), strict=True):
        entry["id"] = number
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert read_prompt_boxes(tmp_path / "b.json")[0]["a.png"].annotation_ids == (7, None, None)
