"""The trial's held-out questions: asked of a trained host, answered greedily, scored by exact word or by overlap."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText

from cloc.boxes import iou
from cloc.places import Places
from mllm_bridge.talk.answers import render
from mllm_bridge.talk.conversations import Conversation, Turn, read_conversations
from mllm_bridge.regions.host import RegionHost
from mllm_bridge.tuning.batches import write_places
from mllm_bridge.proof.verify import load_processor

KINDS = ("referring", "grounding")
NEW_TOKENS = 24
BATCH = 32


@dataclass(frozen=True, slots=True)
class Score:
    """What a host answered to the questions of one kind.

    Attributes:
        right: how many.
        asked: of how many.
        unread: answers in which no box could be read, by reason (grounding).
    """

    right: int
    asked: int
    unread: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked


def held_out(world: Path, kind: str, count: int) -> list[Conversation]:
    """The first `count` held-out questions of one kind.

    Raises:
        ValueError: the world has none.
    """
    found = read_conversations(world / "llava" / "conversations_regions_val.json", world).conversations
    chosen = [one for one in found if one.extras.get("kinds") == [kind]][:count]
    if not chosen:
        raise ValueError(f"trial: {world} holds no held-out questions of the kind {kind!r}; render it again")
    return chosen


class Asker:
    """Asks one host.

    Args:
        folder: of the host.
        region_tokens: regions are asked for by token instead of by coordinates.
    """

    def __init__(self, folder: Path, region_tokens: bool) -> None:
        self.places, self.region_tokens = Places.load(folder), region_tokens
        if region_tokens:
            self.host = RegionHost.from_pretrained(folder)
            self.processor = self.host.processor
        else:
            self.host = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
            self.processor = load_processor(folder)

    @torch.no_grad()
    def ask(self, conversations: Sequence[Conversation]) -> list[str]:
        """The answer to each conversation's first question."""
        texts, images, regions = [], [], []
        for one in conversations:
            opened = [Image.open(file).convert("RGB") for file in one.images]
            turns, kept = write_places(one.turns[:1], one.regions, opened, self.places, self.region_tokens)
            texts.append(render(self.processor, turns, ask=True))
            images.append(opened)
            regions.append([place.box for place in kept])
        if self.region_tokens:
            inputs: dict[str, Any] = self.host.prepare(texts, images, regions)
        else:
            flat = [image for own in images for image in own]
            how = {"padding": True, "padding_side": "left"}
            inputs = dict(self.processor(images=flat, text=texts, return_tensors="pt", text_kwargs=how))
        made = self.host.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = made[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(new, skip_special_tokens=True)


def score(asker: Asker, kind: str, questions: Sequence[Conversation], predictions: Path) -> Score:
    """Ask, write every answer as a JSON line, and count.

    Args:
        asker: the host.
        kind: `referring` (the answer's words are the name's) or `grounding` (IoU of the first box at least 0.5).
        questions: of this kind.
        predictions: file to write.
    """
    right, unread, lines = 0, dict[str, int](), []
    for start in tqdm(range(0, len(questions), BATCH), desc=kind, unit="batch", leave=False):
        part = questions[start : start + BATCH]
        for question, answer in zip(part, asker.ask(part), strict=True):
            good, reason = _judge(asker, kind, question, answer)
            right += good
            if reason:
                unread[reason] = unread.get(reason, 0) + 1
            lines.append({"id": question.key, "kind": kind, "answer": answer, "right": good})
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Score(right, len(questions), unread)


def _judge(asker: Asker, kind: str, question: Conversation, answer: str) -> tuple[bool, str]:
    wanted: Turn = question.turns[1]
    if kind == "referring":
        return answer.lower().split() == wanted.text.lower().split(), ""
    size = Image.open(question.images[0]).size
    read = asker.places.read(answer, size)
    if not read.boxes_xyxy:
        return False, next(iter(read.failures))
    return bool(iou([read.boxes_xyxy[0]], [question.extras["box"]])[0, 0] >= 0.5), ""
