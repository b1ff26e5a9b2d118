"""The trial's held-out questions: asked of a trained host, answered greedily, scored by exact word or by overlap."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cloc.boxes import iou
from cloc.files import read_json
from cloc.images import read_photo
from mllm_bridge.assess.asker import Asker
from mllm_bridge.conversations.reading import IMAGE, REGION, Conversation, Turn, read_conversations

CONVERSATIONS = "llava/conversations_regions.json"
KINDS = ("referring", "grounding")
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


def read_held_out(world: Path, kind: str, count: int | None = None) -> list[Conversation]:
    """The first `count` held-out questions of one kind; all of them without a count.

    Raises:
        ValueError: the world has none.
    """
    found = read_conversations(world / "llava" / "conversations_regions_val.json", world).conversations
    chosen = [one for one in found if one.extras.get("kinds") == [kind]][:count]
    if not chosen:
        raise ValueError(f"trial: {world} holds no held-out questions of the kind {kind!r}; render it again")
    return chosen


def write_training_file(world: Path, kinds: Sequence[str], out: Path) -> Path:
    """Write the world's training conversations with only the turns of some kinds; `out`, left alone if it is there.

    What is not asked in the end costs half of a run's tokens.

    Raises:
        ValueError: the world has no conversations of these kinds.
    """
    if out.is_file():
        return out
    entries = []
    for entry in read_json(world / CONVERSATIONS, "conversations"):
        kept = [index for index, kind in enumerate(entry["kinds"]) if kind in kinds]
        turns = [turn for index in kept for turn in entry["conversations"][2 * index : 2 * index + 2]]
        if not turns:
            continue
        bare = [{**turn, "value": turn["value"].replace(f"{IMAGE}\n", "")} for turn in turns]
        bare[0]["value"] = f"{IMAGE}\n{bare[0]['value']}"
        asked = sum(turn["value"].count(REGION) for turn in bare)
        entries.append({**entry, "conversations": bare, "regions": entry["regions"][:asked]})
    if not entries:
        raise ValueError(f"trial: {world} holds no conversations of the kinds {', '.join(kinds)}; render it again")
    shutil.copyfile(
        (world / CONVERSATIONS).with_name("card.json"), out.with_name("card.json")
    )  # says how boxes are written
    out.write_text(json.dumps(entries), encoding="utf-8")
    return out


def score_answers(asker: Asker, kind: str, questions: Sequence[Conversation], predictions: Path) -> Score:
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
    size = read_photo(question.images[0]).size
    read = asker.box_format.read(answer, size)
    if not read.boxes_xyxy:
        return False, next(iter(read.failures))
    return bool(iou([read.boxes_xyxy[0]], [question.extras["box"]])[0, 0] >= 0.5), ""
