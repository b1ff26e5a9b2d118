import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cloc.box_text import BoxTextFormat
from mllm_bridge.assess.command import main
from mllm_bridge.assess.measures import Captions, Grounding, find_nearest
from mllm_bridge.assess.verdict import assess


def _captions(own, other):
    return Captions(np.array(own), np.array(other), np.array([True] * len(own)), 1 / len(own), Counter())


def _grounding(right, constant):
    return Grounding(np.array(right), constant, Counter(), Counter())


def test_the_rule():
    read, blind = _captions([1.0, 1.1, 1.2], [2.0, 2.1, 2.3]), _captions([1.0, 1.1, 1.2], [1.1, 1.0, 1.2])
    good, bad = _grounding([True] * 30, 0.2), _grounding([True] * 6 + [False] * 24, 0.2)
    assert assess(blind, good).verdict == "train_stage_1_longer"
    assert assess(read, None).verdict == "undecided"
    assert assess(read, bad).verdict == "stage_2_needed"
    found = assess(read, good)
    assert found.verdict == found.figures["verdict"] == "stage_2_not_needed"
    assert found.figures["gain"] == pytest.approx(np.mean([1.0, 1.0, 1.1]))
    assert found.figures["grounding_acc_at_50"] == 1.0
    assert "stage 2 is not needed" in found.lines[-1]


def test_nearest_caption_is_looked_for_without_what_all_share():
    draw = torch.Generator().manual_seed(0)
    own = torch.randn(6, 16, generator=draw)
    seen, said = own + 50, 0.1 * own - 20 + 0.001 * torch.randn(6, 16, generator=draw)
    words = ["a", "b", "c", "d", "e", "a"]
    right, chance = find_nearest(seen, said, words)
    assert right.all()
    assert chance == pytest.approx((4 * 1 + 2 * 2) / 36)
    right, _ = find_nearest(seen, said.roll(1, dims=0), words)
    assert right.tolist() == [False] * 5 + [True]  # equal words are one caption


@pytest.fixture
def talks(tmp_path):
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40, 30 + number), colour).save(tmp_path / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nSay it."}, {"from": "gpt", "value": f"a {colour} square"}]
        rows.append({"id": number, "image": f"{number}.png", "conversations": turns})
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    for row in rows[:3]:
        row["conversations"] = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "<region>"}]
        row["regions"] = [[10, 0, 30, 20]]
    (tmp_path / "places.json").write_text(json.dumps(rows))
    return tmp_path


def test_a_host_is_measured_from_the_command_line(talks, swapped_once, tmp_path, capsys):
    host = shutil.copytree(swapped_once, tmp_path / "host")
    asked = [str(host), "--captions", str(talks / "captions.json")]
    assert main(asked) == 2
    assert "python -m mllm_bridge.box_text" in capsys.readouterr().err
    BoxTextFormat("bins", padded=False).save(host)
    out = tmp_path / "out.json"
    assert main([*asked, "--grounding", str(talks / "places.json"), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["captions"], found["captions_skipped"]) == (4, {})
    assert (found["grounding"], found["grounding_skipped"]) == (3, {"no_box_in_answer": 1})
    assert found["grounding_mean_box"] == 1.0
    assert found["grounding_acc_at_50"] == 0
    assert sum(found["grounding_unread"].values()) == 3
    assert found["retrieval_chance"] == 0.25
    assert "verdict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--count", "1"], "--count: expected 2 or more, got 1"),
        (["--captions", "gone.json"], "there is no such file"),
        (["--captions", "places.json", "--count", "2"], "expected two usable conversations or more, got 0"),
        (["--grounding", "captions.json"], r"no conversation has an answer with a box in the host's convention"),
    ],
)
def test_mistakes_are_one_line_and_status_2(talks, swapped, capsys, monkeypatch, more, message):
    monkeypatch.chdir(talks)
    BoxTextFormat("bins", padded=False).save(swapped)
    assert main([str(swapped), "--captions", "captions.json", *more]) == 2
    assert message in capsys.readouterr().err
