"""Hosts of several families go through the one loop: the loss falls, and the folder gives back what was trained."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_bridge.hosts import FAMILIES
from mllm_bridge.swap.command import swap
from mllm_bridge.tune.command import main

NAMES = ("gemma3", "idefics3", "llava_next", "llava_onevision", "paligemma")


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """Four conversations, two of them without an image."""
    folder, rows = tmp_path_factory.mktemp("talks"), []
    for number in range(4):
        draw = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(draw).resize((40, 32)).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": "Say it"}, {"from": "gpt", "value": "ring " * (number % 2 + 1)}]
        rows.append({"id": number, "conversations": turns, **({"image": f"{number}.png"} if number < 2 else {})})
    (folder / "talks.json").write_text(json.dumps(rows))
    return folder / "talks.json"


TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ ' ' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def swapped_in(tmp_path_factory, tiny_hosts, siglip_folder):
    """A family's tiny host with a tower without CLS, and with a chat template if it came without."""

    def put(name):
        out = tmp_path_factory.mktemp("swapped") / name
        swap(tiny_hosts(name), siglip_folder, out, device="cpu")
        if not (out / "chat_template.jinja").exists():
            (out / "chat_template.jinja").write_text(TEMPLATE)
        return out

    return put


@pytest.mark.parametrize("name", NAMES)
def test_a_host_learns_and_is_read_again(tmp_path, swapped_in, talks, monkeypatch, name):
    """The output table of a tiny host is small and frozen, so the loss falls little; half the batches have no image."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(len(os.sched_getaffinity(0))))
    asked = ["train.steps=6", "train.batch_size=2", "run.workers=0", "optim.lr=0.05", "optim.warmup_ratio=0"]
    assert main(["--runs", str(tmp_path), f"host={swapped_in(name)}", f"data.0.path={talks}", *asked]) == 0
    told = [json.loads(line) for line in (tmp_path / "tune" / "metrics.jsonl").read_text().splitlines()]
    read = [row["loss"] for row in told]
    assert np.mean(read[-2:]) < np.mean(read[:2]) - 0.05
    card = json.loads((tmp_path / "tune" / "host" / "tune.json").read_text())
    assert max(card["logits"]["merge"], card["logits"]["reload"]) <= 1e-5
    assert set(card["skipped"]) == ({"no_image"} if FAMILIES[name].needs_image else set())
    assert any("lora_" in weight for weight in card["trained"])
    assert any("lora_" not in weight for weight in card["trained"])


def test_a_prompt_is_seen_whole_and_an_answer_from_left_to_right():
    """Where a family tells prompt from answer by token types, a training step does so too."""
    labels = torch.tensor([[-100, -100, 7, 8, -100, 9], [-100, 5, -100, -100, -100, -100]])
    types = FAMILIES["paligemma"].trained_on({"input_ids": labels.abs()}, labels)["token_type_ids"]
    assert types.tolist() == [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]
    assert FAMILIES["llava"].trained_on({"input_ids": labels}, labels) == {"input_ids": labels}
