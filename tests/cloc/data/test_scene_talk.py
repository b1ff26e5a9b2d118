"""Conversations about scenes: LLaVA's layout, true answers, balance, and the two ways to point at an object."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from cloc.scenes import WorldSpec, ensure_scenes, list_categories, read_world, render_scene
from cloc.scenes.captions import add_article
from cloc.scenes.llava import write_box
from cloc.scenes.questions import KINDS, PLACE, make_evaluation_turns, make_training_turns
from cloc.scenes.world import make_scene_rng

SPEC = WorldSpec(train=0, conversations=12, val=6, refcoco=2, size=64, coordinates="bins", bins=32)
HELD_OUT = {category.id for category in list_categories(SPEC) if category.caption_only}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("talk") / "world"
    ensure_scenes(out, SPEC, workers=1, progress=False)
    return out


def entries(world, name):
    return json.loads((world / f"llava/{name}.json").read_text())


def find_turns(count, evaluation=False):
    for index in range(count):
        split = "val" if evaluation else "llava"
        scene, rng = render_scene(SPEC, index, split), make_scene_rng(SPEC, split, index + (2 << 32))
        yield (
            scene,
            list(
                make_evaluation_turns(SPEC, scene, rng) if evaluation else make_training_turns(SPEC, scene, True, rng)
            ),
        )


@pytest.mark.parametrize("evaluation", [False, True])
def test_answers_are_true(evaluation):
    kinds = Counter()
    for scene, turns in find_turns(60, evaluation):
        names = [thing.name for thing in scene.objects]
        for turn in turns:
            kinds[turn.kind, turn.answer if turn.kind in ("counting", "yesno") else ""] += 1
            asked = [c for c in list_categories(SPEC) if c.id == turn.category_id]
            if turn.kind == "referring":
                (thing,) = [thing for thing in scene.objects if thing.box_xyxy == turn.asked_box]
                assert turn.answer == thing.name == asked[0].name
                assert turn.question.count(PLACE) == 1
            elif turn.kind == "grounding":
                text = next(e for e in scene.expressions if e.text.removeprefix("the ") in turn.question
                            and scene.objects[e.object_index].box_xyxy == turn.answer_box)  # fmt: skip
                assert turn.answer == PLACE
                assert f"the {text.text.removeprefix('the ')}" in turn.question
            elif turn.kind == "counting":
                assert turn.answer == str(names.count(asked[0].name))
                assert add_article(asked[0].name) in turn.question
            elif turn.kind == "yesno":
                assert turn.answer == ("yes" if asked[0].name in names else "no")
                assert add_article(asked[0].name) in turn.question
            else:
                assert (turn.kind, turn.answer) == ("caption", scene.caption)
    assert {kind for kind, _ in kinds} == set(KINDS)
    assert {answer for kind, answer in kinds if kind == "counting"} >= {"0", "1", "2"}


@pytest.mark.parametrize("most", [1, 2, 8])
def test_no_training_question_holds_the_answer_to_another(most):
    asked = Counter()
    for index in range(60):
        scene = render_scene(SPEC, index, "llava")
        turns = make_training_turns(replace(SPEC, questions=most), scene, True, make_scene_rng(SPEC, "llava", index))
        boxes = [turn.asked_box or turn.answer_box for turn in turns if turn.kind in ("referring", "grounding")]
        assert len(set(boxes)) == len(boxes)
        counts = Counter(turn.kind for turn in turns)
        assert counts["referring"] <= most
        assert counts["grounding"] <= most
        asked += counts
    assert asked["referring"] > 0.9 * 60 * min(most, 1.5)
    assert asked["grounding"] > 0.7 * 60 * min(most, 1.5)


def test_training_never_points_at_caption_only_categories_and_evaluation_marks_them(world):
    for _, turns in find_turns(100):
        assert not [t for t in turns if t.kind in ("referring", "grounding") and t.category_id in HELD_OUT]
    marked = [e for e in entries(world, "conversations_val") if e["kinds"] == ["referring"]]
    assert all(e["caption_only"] == (e["category_id"] in HELD_OUT) for e in marked)
    scenes = [render_scene(SPEC, index, "val") for index in range(SPEC.val)]
    assert [e["box"] for e in marked] == [list(thing.box_xyxy) for scene in scenes for thing in scene.objects]


def test_yes_and_no_are_as_frequent(world):
    def answers(name):
        return Counter(
            entry["conversations"][2 * place + 1]["value"]
            for entry in entries(world, name)
            for place, kind in enumerate(entry["kinds"])
            if kind == "yesno"
        )

    assert answers("conversations") == {"yes": 6, "no": 6}
    assert answers("conversations_val") == {"yes": 6, "no": 6}


def test_questions_about_absent_things_follow_the_frequencies_of_the_world():
    tailed = replace(SPEC, tail=1.5)
    asked, shown = Counter(), Counter()
    for index in range(300):
        scene = render_scene(tailed, index, "val", 32)
        shown.update(thing.category_id for thing in scene.objects)
        turns = make_evaluation_turns(tailed, scene, make_scene_rng(tailed, "val", index + (2 << 32)))
        asked.update(turn.category_id for turn in turns if turn.kind == "yesno" and turn.answer == "no")
    frequent = {number for number, _ in shown.most_common(8)}
    assert sum(asked[number] for number in frequent) > 0.4 * asked.total()


@pytest.mark.parametrize("name", ["conversations", "conversations_regions"])
@pytest.mark.parametrize("part", ["", "_val"])
def test_files_have_llavas_layout(world, name, part):
    listed = entries(world, name + part)
    assert len({entry["id"] for entry in listed}) == len(listed)
    for entry in listed:
        assert (world / entry["image"]).is_file()
        turns = entry["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n")
        text = " ".join(turn["value"] for turn in turns)
        assert text.count("<image>") == 1
        assert PLACE not in text
        assert len(entry["kinds"]) == len(turns) // 2
        if "regions" in name:
            assert text.count("<region>") == len(entry["regions"])
        else:
            assert "<region>" not in text
            assert "regions" not in entry


def test_the_two_ways_to_point_hold_the_same_questions(world):
    for part in ("", "_val"):
        for plain, placed in zip(
            entries(world, f"conversations{part}"), entries(world, f"conversations_regions{part}"), strict=True
        ):
            boxes = [write_box(tuple(box), SPEC.size, SPEC) for box in placed["regions"]]
            for one, other in zip(plain["conversations"], placed["conversations"], strict=True):
                if "<region>" in other["value"]:
                    assert one["value"] == other["value"].replace("<region>", boxes.pop(0))
                else:
                    assert one["value"] == other["value"]
            assert boxes == []
            assert (plain["id"], plain["image"], plain["kinds"]) == (placed["id"], placed["image"], placed["kinds"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"coordinates": "unit"}, "[0.000, 0.250, 0.516, 1.000]"),
        ({"coordinates": "thousand"}, "[0, 250, 516, 1000]"),
        ({"coordinates": "bins", "bins": 32}, "[0, 8, 16, 31]"),
        ({"coordinates": "bins", "bins": 2}, "[0, 0, 1, 1]"),
    ],
)
def test_places_are_written_in_the_declared_coordinates(change, expected):
    assert write_box((0.0, 16.0, 33.0, 64.0), 64, replace(SPEC, **change)) == expected


def test_places_can_be_read_back_to_half_a_step(world):
    card = json.loads((world / "llava/card.json").read_text())["coordinates"]
    assert (card["convention"], card["to"]) == ("bins", 31)
    checked = 0
    for entry in entries(world, "conversations_val"):
        if entry["kinds"] == ["grounding"]:
            found = re.fullmatch(r"\[(\d+), (\d+), (\d+), (\d+)\]", entry["conversations"][1]["value"])
            shares = [int(value) / card["to"] for value in found.groups()]
            assert max(abs(a - b / SPEC.size) for a, b in zip(shares, entry["box"], strict=True)) <= 0.5 / 31 + 1e-9
            checked += 1
    assert checked >= 5


def test_the_cards_count_conversations_and_equal_parameters_give_equal_files(world, tmp_path):
    counts = read_world(world)["counts"]["llava"]
    assert counts["conversations"] == counts["yesno_questions"] == 12
    assert counts["held_out_questions"] == len(entries(world, "conversations_val"))
    again = tmp_path / "again"
    ensure_scenes(again, SPEC, workers=1, progress=False)
    for path in (world / "llava").rglob("*"):
        assert path.is_dir() or path.read_bytes() == (again / path.relative_to(world)).read_bytes()


def test_a_world_whose_every_category_is_in_one_scene_cannot_be_asked_for_an_absent_one(tmp_path):
    tiny = replace(SPEC, num_categories=2, caption_only=0, min_objects=5, twin_share=0.0)
    with pytest.raises(ValueError, match="conversations: every category is in one scene; raise num_categories"):
        ensure_scenes(tmp_path / "w", tiny, workers=1, progress=False)
