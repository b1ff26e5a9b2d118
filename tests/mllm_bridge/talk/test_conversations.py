import json

import pytest
from PIL import Image

from cloc.formats.llava import read_conversation
from mllm_bridge.conversations.questions import answered, read_captioned_boxes, read_questions
from mllm_bridge.conversations.reading import Conversation, ImageRegion, Turn, describe_skips, read_conversations


def _human(text="<image>\nWhat is it?"):
    return {"from": "human", "value": text}


def _gpt(text="A ring."):
    return {"from": "gpt", "value": text}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    return tmp_path


def _read(folder, *entries):
    (folder / "c.json").write_text(json.dumps(entries))
    return read_conversations(folder / "c.json")


GOOD = {"id": "good", "image": "a.png", "conversations": [_human(), _gpt(), _human("Sure?"), _gpt("Yes.")]}


def test_json_and_json_lines_give_the_same(folder):
    entries = [GOOD, {**GOOD, "id": 7, "model": "x"}]
    found = _read(folder, *entries)
    (folder / "c.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert read_conversations(folder / "c.jsonl").conversations == found.conversations
    first, second = found.conversations
    assert first.images == (folder / "a.png",)
    assert first.turns[1] == Turn("assistant", "A ring.")
    assert (second.key, second.extras) == ("7", {"model": "x"})
    assert not found.skipped


def test_an_image_without_a_marker_gets_one_in_front(folder):
    entry = {"image": "a.png", "conversations": [_human("What is it?"), _gpt()]}
    assert _read(folder, entry).conversations[0].turns[0].text == "<image>\nWhat is it?"


def test_a_conversation_may_have_no_image_and_several(folder):
    without = {"conversations": [{"from": "system", "value": "Be kind."}, _human("Hello"), _gpt("Hello.")]}
    both = {
        "image": ["a.png", "b.png"],
        "conversations": [_human("<image> <image> <region> and <region>?"), _gpt("A ring.")],
        "regions": [[1, 2, 3, 4], {"box": [5, 6, 7, 8], "image": 1}],
    }
    first, second = _read(folder, without, both).conversations
    assert first.images == ()
    assert second.regions == (ImageRegion((1.0, 2.0, 3.0, 4.0)), ImageRegion((5.0, 6.0, 7.0, 8.0), 1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conversations": [_human(), _gpt(), _gpt()]}, "two_assistants_in_a_row"),
        ({"conversations": [_human(), _human(""), _gpt()]}, "two_users_in_a_row"),
        ({"conversations": [_human(), _gpt(" \n")]}, "empty_answer"),
        ({"conversations": [_human()]}, "no_answer"),
        ({"conversations": [_gpt()]}, "no_question"),
        ({"conversations": [_human(), {"from": "bot", "value": "x"}]}, "unknown_role"),
        ({"conversations": [_human(), {"from": "gpt", "value": None}]}, "bad_text"),
        ({"conversations": "hello"}, "no_conversation"),
        ({"image": "c.png"}, "missing_image"),
        ({"image": 3}, "bad_image_name"),
        ({"conversations": []}, "no_conversation"),
        ({"regions": 7.5}, "bad_region"),
        ({"image": ["a.png", "b.png"]}, "image_markers"),
        ({"conversations": [_human(), _gpt("<image>")]}, "image_in_answer"),
        ({"regions": [[1, 2, 3, 4]]}, "more_regions_than_placeholders"),
        ({"conversations": [_human("<image> <region>?"), _gpt()]}, "placeholder_without_region"),
        ({"conversations": [_human("<image> <region>?"), _gpt()], "regions": [[1, 2, 1, 4]]}, "bad_region"),
        (
            {"conversations": [_human("<image> <region>?"), _gpt()], "regions": [{"box": [1, 2, 3, 4], "image": 1}]},
            "region_without_image",
        ),
    ],
)
def test_what_cannot_be_used_is_counted_by_reason(folder, changes, reason):
    found = _read(folder, GOOD, {**GOOD, "id": "bad", **changes})
    assert [one.key for one in found.conversations] == ["good"]
    assert dict(found.skipped) == {reason: 1}
    assert describe_skips(found.skipped) == f"{reason} 1"
    assert found.example[reason]


def test_a_file_without_a_usable_entry_is_an_error(folder):
    with pytest.raises(ValueError, match=r"not one conversation that can be used \(two_assistants_in_a_row 1\)"):
        _read(folder, {**GOOD, "conversations": [_human(), _gpt(), _gpt()]})
    with pytest.raises(ValueError, match="it is empty"):
        _read(folder)
    (folder / "c.json").write_text('{"a": 1}\n{"a": 2}')
    with pytest.raises(ValueError, match=r"name a file of JSON lines \.jsonl"):
        read_conversations(folder / "c.json")
    with pytest.raises(ValueError, match="there is no such file"):
        read_conversations(folder / "d.json")


def test_late_system_turn_is_refused(folder):
    with pytest.raises(ValueError, match="a system turn at the start only"):
        Conversation("k", (), (Turn("user", "a"), Turn("assistant", "b"), Turn("system", "c")))


def test_questions_and_answers_are_joined_and_the_rest_counted(folder):
    rows = [{"question_id": n, "image": "a.png", "text": f"text {n}", "category": "conv"} for n in range(3)]
    rows[2]["image"] = "gone.png"
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"question_id": 9}\n')
    questions, skipped = read_questions(folder / "q.jsonl")
    assert dict(skipped) == {"bad_question": 1}
    assert [question.to_json() for question in questions] == rows
    joined, left = answered(questions, [questions[0], questions[2]], folder)
    assert [one.turns[0].text for one in joined] == ["<image>\ntext 0"]
    assert dict(left) == {"question_without_answer": 1, "missing_image": 1}


@pytest.mark.photos
def test_the_sample_files_are_read_without_loss(sample_data):
    def rows(file):
        return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]

    captioned, skipped = read_captioned_boxes(sample_data / "vlm" / "caps_boxes_coco2014_val_80.jsonl")
    assert (len(captioned), dict(skipped)) == (80, {})
    assert [one.to_json() for one in captioned] == rows(sample_data / "vlm" / "caps_boxes_coco2014_val_80.jsonl")
    bench = sample_data / "region_text" / "ferret_bench"
    files = [sample_data / "vlm" / "qa90_questions.jsonl", *sorted(bench.glob("*.jsonl"))]
    assert len(files) == 10
    for file in files:
        found, skipped = read_questions(file)
        assert not skipped
        assert [one.to_json() for one in found] == rows(file)


@pytest.mark.photos
def test_ferret_bench_becomes_conversations_on_its_photos(sample_data):
    bench, count = sample_data / "region_text" / "ferret_bench", 0
    for task in ("ground_conv", "refer_caption", "refer_reason"):
        questions, _ = read_questions(bench / f"{task}_question.jsonl")
        answers, _ = read_questions(bench / f"{task}_answer.jsonl")
        found, skipped = answered(questions, answers, sample_data / "coco" / "val2017")
        assert not skipped
        count += len(found)
    assert count == 11


def layouts(photo):
    """Entries as other tools write them, and what becomes of each: the number of photos, or a reason."""
    asked = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A golden ring."}]
    said = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A ring."}]
    absolute = str(photo.resolve())
    return [
        ({"image": "a.jpg", "conversations": asked}, 1),
        ({"images": ["a.jpg"], "conversations": asked}, 1),
        ({"images": "a.jpg", "conversations": asked}, 1),
        ({"images": [{"path": "a.jpg", "bytes": None}], "messages": said}, 1),
        ({"images": ["a.jpg"], "messages": said}, 1),
        ({"image_path": "a.jpg", "conversations": asked}, 1),
        ({"image_paths": ["a.jpg", "./a.jpg"], "conversations": asked}, 2),
        ({"image": "a.jpg", "images": ["a.jpg"], "conversations": asked}, 1),
        ({"image": absolute, "conversations": asked}, 1),
        ({"image": f"file://{absolute}", "conversations": asked}, 1),
        ({"image": "sub\\b.jpg", "conversations": asked}, 1),
        ({"image": "", "conversations": asked}, 0),
        ({"images": [], "conversations": asked}, 0),
        ({"image": None, "conversations": asked}, 0),
        ({"image_id": 7, "conversations": asked}, 0),
        ({"image": "a.jpg", "images": ["b.jpg"], "conversations": asked}, "several_image_fields"),
        ({"images": [["a.jpg"]], "conversations": asked}, "bad_image_name"),
        ({"image": "C:\\photos\\a.jpg", "conversations": asked}, "windows_drive"),
        ({"image": "http://x.org/a.jpg", "conversations": asked}, "image_url"),
        ({"image": "data:image/png;base64,xx", "conversations": asked}, "image_url"),
        ({"image": "gone.jpg", "conversations": asked}, "missing_image"),
        ({"image": "a" * 5000, "conversations": asked}, "bad_image_name"),
        ({"image": "a\0.jpg", "conversations": asked}, "missing_image"),
        ({"video": "a.mp4", "conversations": asked}, "video"),
        ({"videos": ["a.mp4"], "images": [], "messages": said}, "video"),
        ({"audios": ["a.wav"], "messages": said}, "audio"),
        ({"img": "a.jpg", "conversations": asked}, "image_in_another_field"),
        ({"photo_files": ["a.JPG"], "conversations": asked}, "image_in_another_field"),
        ({"images": ["a.jpg", "a.jpg"], "messages": said}, "image_markers"),
    ]


def test_other_names_of_the_fields_are_read_or_counted(tmp_path):
    """A photo that is named is used or counted; it was tuned on as a text without one."""
    photo = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(photo)
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sub" / "b.jpg")
    for entry, expected in layouts(photo):
        (tmp_path / "c.json").write_text(json.dumps([{"id": 1, **entry}, layouts(photo)[0][0]]))
        found = read_conversations(tmp_path / "c.json")
        if isinstance(expected, str):
            assert dict(found.skipped) == {expected: 1}, entry
        else:
            assert (len(found.conversations[0].images), dict(found.skipped)) == (expected, {}), entry


BY_NAME = ("missing_image", "image_markers", "bad_image_name", "windows_drive", "image_url")


def test_the_converter_reads_the_same_names(tmp_path):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"")
    for entry, expected in layouts(photo):
        found = read_conversation(entry)
        if isinstance(expected, str) and expected not in BY_NAME:
            assert found == expected, entry
        elif expected == 1:
            assert found.image.endswith(("a.jpg", "b.jpg")), entry


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"id": ' + "9" * 5000 + "}]", "\\ud800", '{"a": NaN}', ""])
def test_a_hostile_file_is_one_line(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=r"c\.json") as caught:
        read_conversations(tmp_path / "c.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("box", [[0, 0, 1e999, 4], [0, 0, float("nan"), 4], [True, False, 5, 5], ["0", 0, 4, 4]])
def test_regions_that_are_no_numbers_are_counted(folder, box):
    (folder / "c.json").write_text(json.dumps([GOOD, {**GOOD, "regions": [box]}]))
    assert dict(read_conversations(folder / "c.json").skipped) == {"bad_region": 1}
