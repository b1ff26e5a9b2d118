"""Three measures of a host whose projector was trained: captions, the projected tokens, boxes.

Letters: N conversations, W width of the language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from cloc.boxes import iou
from cloc.images import read_photo
from mllm_bridge.assess.asker import Asker
from mllm_bridge.conversations.reading import Conversation
from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.tune.batches import BatchMaker, ConversationBatch, write_boxes
from mllm_bridge.tune.trainee import Trainee

ASKED = 16
"""Questions a batch."""


@dataclass(frozen=True, slots=True)
class Captions:
    """How likely captions are, and which image their words are near to; one entry for each usable conversation.

    Attributes:
        own: mean negative log-likelihood of an answer token (nats), with the conversation's own image.
        other: the same with the image of the next conversation.
        found: whether the caption nearest to the image's projected tokens is its own (or one of equal words).
        chance: share found by choosing blindly.
        skipped: conversations left out, by reason.
    """

    own: np.ndarray
    other: np.ndarray
    found: np.ndarray
    chance: float
    skipped: Counter[str]


@torch.no_grad()
def measure_captions(
    host: PreTrainedModel, family: HostFamily, maker: BatchMaker, conversations: Sequence[Conversation]
) -> Captions:
    """Ask nothing; only look how likely the given answers are.

    Args:
        host: in evaluation mode.
        family: of the host.
        maker: makes its batches.
        conversations: with one image and no region each; at least two usable ones.

    Raises:
        ValueError: fewer than two can be used.
    """
    usable, skipped = _usable(conversations)
    trainee = Trainee(host, None, host.get_submodule(family.tower_path), None)
    own, other, pooled, said, words = [], [], [], [], []
    for index, one in enumerate(tqdm(usable, desc="captions", unit="image", leave=False)):
        batch = maker.make([one])
        wrong = maker.make([replace(one, images=usable[(index + 1) % len(usable)].images)])
        lost = batch.skipped + wrong.skipped
        if lost:
            skipped[next(iter(lost))] += 1
            continue
        own.append(_loss(trainee, batch))
        other.append(_loss(trainee, wrong))
        pooled.append(torch.cat(family.image_features(host, batch.inputs)).float().mean(dim=0))
        said.append(host.get_input_embeddings()(batch.labels[batch.labels >= 0]).float().mean(dim=0))
        words.append(one.turns[-1].text.strip())
    if len(own) < 2:
        reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items()) or "the file is too short"
        raise ValueError(f"captions: expected two usable conversations or more, got {len(own)} ({reasons})")
    found, chance = find_nearest(torch.stack(pooled), torch.stack(said), words)
    return Captions(np.array(own), np.array(other), found, chance, skipped)


def _usable(conversations: Iterable[Conversation]) -> tuple[list[Conversation], Counter[str]]:
    usable, skipped = [], Counter[str]()
    for one in conversations:
        if len(one.images) != 1 or one.regions:
            skipped["not_one_image" if len(one.images) != 1 else "with_regions"] += 1
        else:
            usable.append(one)
    return usable, skipped


def _loss(trainee: Trainee, batch: ConversationBatch) -> float:
    outputs = trainee(batch.labels, region_boxes=batch.region_boxes, region_image=batch.region_image, **batch.inputs)
    return float(outputs.nll) / batch.answer_tokens


def find_nearest(pooled: torch.Tensor, said: torch.Tensor, words: Sequence[str]) -> tuple[np.ndarray, float]:
    """Whether each image's nearest caption is its own.

    Both sides are centred first: token embeddings of a language model share a large common part.

    Args:
        pooled: (N, W) mean of an image's projected tokens.
        said: (N, W) mean of the embeddings of a caption's tokens.
        words: N captions; equal ones are one caption.

    Returns:
        (N,) booleans, and the share that blind choice finds.
    """
    images, texts = (torch.nn.functional.normalize(side - side.mean(dim=0), dim=1) for side in (pooled, said))
    best = (images @ texts.T).argmax(dim=1).tolist()
    counts = Counter(words)
    chance = sum(counts[word] for word in words) / len(words) ** 2
    return np.array([words[index] == word for index, word in zip(best, words, strict=True)]), chance


@dataclass(frozen=True, slots=True)
class Grounding:
    """Answers to questions for a box.

    Attributes:
        right: (N,) whether the first box of the answer has an IoU of 0.5 or more with the true one.
        constant: the share that the mean of all true boxes, as fractions of the image, would get.
        unread: answers without a box, by reason.
        skipped: conversations left out, by reason.
    """

    right: np.ndarray
    constant: float
    unread: Counter[str]
    skipped: Counter[str]


def measure_grounding(asker: Asker, conversations: Sequence[Conversation]) -> Grounding:
    """Ask for boxes; the true box is the first one of the conversation's own first answer.

    Raises:
        ValueError: no conversation has a box in its answer.
    """
    asked, truths, sizes, skipped = [], [], [], Counter[str]()
    for one in conversations:
        images = [read_photo(file) for file in one.images]
        if len(images) != 1:
            skipped["not_one_image"] += 1
            continue
        turns, _ = write_boxes(one.turns, one.regions, images, asker.box_format, keep=False)
        answer = next(turn.text for turn in turns if turn.role == "assistant")
        boxes = asker.box_format.read(answer, images[0].size).boxes_xyxy
        if not boxes:
            skipped["no_box_in_answer"] += 1
            continue
        asked.append(one)
        truths.append(boxes[0])
        sizes.append(images[0].size * 2)
    if not asked:
        raise ValueError(
            f"grounding: no conversation has an answer with a box in the host's convention ({asker.box_format.name}); "
            "expected answers such as [x0, y0, x1, y1], or <region> with regions in pixels"
        )
    right, unread = [], Counter[str]()
    for start in tqdm(range(0, len(asked), ASKED), desc="grounding", unit="batch", leave=False):
        part = slice(start, start + ASKED)
        for answer, truth, size in zip(asker.ask(asked[part]), truths[part], sizes[part], strict=True):
            read = asker.box_format.read(answer, size[:2])
            if not read.boxes_xyxy:
                unread[next(iter(read.failures))] += 1
            right.append(bool(read.boxes_xyxy) and _overlap(read.boxes_xyxy[0], truth) >= 0.5)
    scale = np.array(sizes, dtype=float)
    mean = (np.array(truths) / scale).mean(axis=0)
    constant = np.mean([_overlap(mean * own, truth) >= 0.5 for own, truth in zip(scale, truths, strict=True)])
    return Grounding(np.array(right), float(constant), unread, skipped)


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    return float(iou([one], [other])[0, 0])
