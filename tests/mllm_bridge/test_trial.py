import json
from pathlib import Path

import pytest

from cloc.box_text import BoxTextFormat
from cloc.config import checked
from mllm_bridge.conversations.answers import IGNORED, encode
from mllm_bridge.conversations.reading import Conversation, Turn
from mllm_bridge.trial import __main__ as trial
from mllm_bridge.trial.__main__ import main, make_settings
from mllm_bridge.trial.host import list_words, make_host, make_word_tokenizer
from mllm_bridge.trial.plan import ARMS, LanguagePlan, load_plan
from mllm_bridge.trial.questions import write_training_file
from mllm_bridge.trial.table import guess_boxes, guess_names, judge_claim, make_table
from mllm_bridge.tune.settings import TuneConfig

TEXTS = ["<image>\nWhat is in [3, 17, 30, 31]?", "A red-hot ring.", "Where is it?", "[0, 1, 2, 3]"]
WORDS = list_words(TEXTS)


def test_every_word_sign_and_number_is_one_token():
    tokenizer = make_word_tokenizer([*WORDS, *map(str, range(32))], 64)
    ids = tokenizer(TEXTS[0].replace("<image>", ""))["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "what is in [ 3 , 17 , 30 , 31 ] ?"
    assert tokenizer.convert_tokens_to_ids("<region>") != tokenizer.unk_token_id


def test_the_host_reads_its_conversations_without_an_unknown_word(tmp_path, clip_folder):
    from PIL import Image
    from transformers import AutoProcessor

    language = LanguagePlan(width=16, layers=1, heads=2, context=128)
    folder = make_host(tmp_path / "host", clip_folder, language, WORDS, 32, seed=0)
    processor = AutoProcessor.from_pretrained(folder)
    turns = [Turn("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(TEXTS)]
    inputs, labels = encode(processor, [turns], [[Image.new("RGB", (40, 40))]])
    assert processor.tokenizer.unk_token_id not in inputs["input_ids"]
    said = processor.tokenizer.decode(labels[0][labels[0] != IGNORED])
    assert said == "a red - hot ring . </s> [ 0 , 1 , 2 , 3 ] </s>"
    assert make_host(tmp_path / "host", clip_folder, language, WORDS, 32, seed=0) == folder


def test_arms_differ_in_host_and_prompter_alone(tmp_path):
    plan = load_plan("configs/bridge/trial.yaml")
    assert (plan.arms, plan.seeds, plan.bins) == (ARMS, (0, 1, 2), 32)
    made = {arm: checked(TuneConfig, make_settings(plan, arm, 1, tmp_path, tmp_path / "talks.json")) for arm in ARMS}
    for arm in ARMS:
        same = made[arm].model_copy(update={"run": made["clip"].run, "regions": made["clip"].regions})
        assert same == made["clip"]
        assert (made[arm].regions.export is not None) == (arm == "cloc_regions")


def test_only_the_kinds_of_the_plan_are_trained_on(tmp_path):
    talk = [("yesno", "Is it?", "no"), ("referring", "What is <region>?", "ring"), ("caption", "Say.", "a ring")]
    turns = [
        turn for _, ask, answer in talk for turn in ({"from": "human", "value": ask}, {"from": "gpt", "value": answer})
    ]
    turns[0]["value"] = "<image>\nIs it?"
    entry = {
        "id": "a",
        "image": "a.png",
        "conversations": turns,
        "kinds": [kind for kind, *_ in talk],
        "regions": [[0, 0, 2, 2]],
    }
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "conversations_regions.json").write_text(json.dumps([entry]))
    (tmp_path / "llava" / "card.json").write_text("{}")
    for kinds, said, regions in (
        (["referring"], ["<image>\nWhat is <region>?", "ring"], 1),
        (["caption"], ["<image>\nSay.", "a ring"], 0),
    ):
        (made,) = json.loads(write_training_file(tmp_path, kinds, tmp_path / f"{kinds[0]}.json").read_text())
        assert [turn["value"] for turn in made["conversations"]] == said
        assert len(made["regions"]) == regions
    with pytest.raises(ValueError, match="no conversations of the kinds counting"):
        write_training_file(tmp_path, ["counting"], tmp_path / "none.json")


def test_a_shorter_budget_changes_length_and_nothing_else():
    whole, part = (load_plan("configs/bridge/trial.yaml", budget) for budget in (1.0, 0.02))
    assert part.steps == round(whole.steps / 50)
    assert part.model_copy(update={"steps": whole.steps, "questions": whole.questions}) == whole
    with pytest.raises(ValueError, match="expected a share above 0"):
        load_plan("configs/bridge/trial.yaml", 0)


def test_verdicts():
    assert judge_claim([0.9, 0.91, 0.92], [0.5, 0.52, 0.5])[0] == "shown"
    assert judge_claim([0.5, 0.52, 0.5], [0.9, 0.91, 0.92])[0] == "refuted"
    assert judge_claim([0.5, 0.9, 0.4], [0.5, 0.52, 0.6])[0] == "not distinguishable"
    assert judge_claim([0.9], [0.1]) == ("not distinguishable", pytest.approx(0.8), None)


def test_the_table_names_spread_and_claims():
    rows = [
        {"arm": arm, "seed": seed, "referring": base + seed / 100, "grounding": 0.2, "seconds": 60.0}
        for arm, base in zip(ARMS, (0.3, 0.6, 0.9), strict=True)
        for seed in range(3)
    ]
    assert "guessing" not in make_table(rows)
    text = make_table(rows, {"referring": 0.25, "grounding": 0.1})
    assert "| guessing | - | 0.250 | 0.100 | - |" in text
    assert "| clip | 3 | 0.310 ± 0.010 | 0.200 ± 0.000 | 60 |" in text
    assert "CLOC above CLIP at referring: shown (difference +0.300" in text
    assert "CLOC above CLIP at grounding: not distinguishable" in text


def asked(image, answer, **extras):
    return Conversation("q", (Path(image),), (Turn("user", "<image>?"), Turn("assistant", answer)), (), extras)


def test_what_answers_that_do_not_look_get():
    shown = {"a.png": ["ring", "ring", "Star"], "b.png": ["star"]}
    questions = [asked(image, name) for image, names in shown.items() for name in names]
    assert guess_names(questions) == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]]
    places = [asked("a.png", "[0]", box=box) for box in boxes]
    assert guess_boxes(places) == pytest.approx(2 / 6)
    assert guess_boxes(places[:1]) == 0.0


def test_missing_parts_are_one_line_and_another_plan_is_refused(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(json.dumps({"exports": {"clip": "a", "cloc": "b"}, "world": "gone"}))
    assert main(["--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    assert main(["--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out"), "--budget", "0.5"]) == 2
    assert "was begun with another plan" in capsys.readouterr().err
    assert main(["--plan", "none.yaml"]) == 2


@pytest.mark.parametrize(("status", "expected"), [(130, KeyboardInterrupt), (143, SystemExit), (2, ValueError)])
def test_a_training_that_was_asked_to_stop_stops_the_trial(tmp_path, monkeypatch, status, expected):
    monkeypatch.setattr(trial, "list_texts", lambda file: TEXTS)
    monkeypatch.setattr(trial, "make_host", lambda folder, *rest: folder)
    monkeypatch.setattr(trial, "write_training_file", lambda world, kinds, file: file)
    monkeypatch.setattr(trial.tune, "main", lambda arguments: status)
    plan = load_plan("configs/bridge/trial.yaml")
    with pytest.raises(expected):
        trial.run_one(plan, "clip", 0, tmp_path)
    assert not (tmp_path / "clip-0.json").exists()


@pytest.mark.parametrize("fields", [{"digits": 10**9}, {"bins": 10**12}, {"digits": 0}, {"bins": 1}], ids=str)
def test_places_that_nobody_writes_are_refused(fields):
    with pytest.raises(ValueError, match="digits from 1 to 15"):
        BoxTextFormat(**fields)
