import json

import pytest
from PIL import Image

from mllm_bridge.talk.conversations import Conversation, Place, Turn, read_conversations, told
from mllm_bridge.talk.questions import answered, read_captioned_boxes, read_questions


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
    assert second.regions == (Place((1.0, 2.0, 3.0, 4.0)), Place((5.0, 6.0, 7.0, 8.0), 1))


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
    assert told(found.skipped) == f"{reason} 1"
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
