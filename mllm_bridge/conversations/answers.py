"""Conversations to a host's inputs, with the loss on answers only, exactly where its own chat template puts them.

The whole conversation is rendered by the template once; an answer is found behind the prompt that the template writes
for generation, so a host is trained on just what it will have to say. Characters become tokens through the tokenizer's
offsets, corrected for the placeholders that the processor puts in for an image.

Letters: B conversations, L tokens, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from mllm_bridge.conversations.reading import IMAGE, Turn

IGNORED = -100
"""The label that takes no part in the loss, as everywhere in transformers."""
MOVED = "text_replacement_offsets"
"""Under this name processors say where their placeholders went."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A rendered conversation.

    Attributes:
        text: what the tokenizer gets, one image token for each image.
        spans: [start, end) characters of each answer, with the end-of-turn token where the template writes one.
        stops: for each answer whether the host learns to stop by a label of its own (the template writes no end).
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    stops: tuple[bool, ...]


def make_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns in the form that chat templates take, `<image>` split off as a part of its own."""
    made = []
    for turn in turns:
        parts: list[dict[str, str]] = []
        for number, text in enumerate(turn.text.split(IMAGE)):
            if number:
                parts.append({"type": "image"})
            if text.strip():
                parts.append({"type": "text", "text": text.strip()})
        made.append({"role": turn.role, "content": parts})
    return made


def render(processor: ProcessorMixin, turns: Sequence[Turn], ask: bool) -> str:
    """Turns as the host's chat template writes them; with `ask` the prompt for the next answer follows.

    Raises:
        ValueError: the host has no chat template, or it refuses these turns.
    """
    if not processor.chat_template:
        raise ValueError(
            "host: its processor has no chat template, so it is not known how it marks a question and an answer; "
            "save one into the folder as chat_template.jinja"
        )
    return processor.apply_chat_template(make_messages(turns), tokenize=False, add_generation_prompt=ask)


def find_answers(processor: ProcessorMixin, turns: Sequence[Turn]) -> Answers:
    """Render a conversation and find its answers.

    Raises:
        ValueError: the template changes or drops an answer.
    """
    whole = render(processor, turns, ask=False)
    special = [token for token in set(processor.tokenizer.all_special_tokens) if token]
    spans, stops = [], []
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        start = _common(render(processor, turns[:number], ask=True), whole)
        answer = turn.text.strip()
        position = whole.find(answer, start)
        if position < 0 or whole[start:position].strip():
            raise ValueError(
                f"host: its chat template does not write the answer {answer!r:.60} as it is behind the prompt for it; "
                "the loss cannot be put on it"
            )
        end = position + len(answer)
        here = whole if number + 1 == len(turns) else render(processor, turns[: number + 1], ask=False)
        after = whole[end : _common(here, whole)]
        mark = next((token for token in special if after.lstrip().startswith(token)), None)
        spans.append((start, end if mark is None else whole.index(mark, end) + len(mark)))
        stops.append(mark is None)
    if stops[-1]:
        # A host that never saw an end would never stop: the last answer gets one, the others learn it by their label.
        last = spans[-1][0], spans[-1][1] + len(processor.tokenizer.eos_token)
        return Answers(whole[: spans[-1][1]] + processor.tokenizer.eos_token, (*spans[:-1], last), (*stops[:-1], False))
    return Answers(whole, tuple(spans), tuple(stops))


def _common(one: str, other: str) -> int:
    """How many characters two texts share at their start."""
    pairs = zip(one, other, strict=False)
    return next((position for position, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def encode(
    processor: ProcessorMixin,
    conversations: Sequence[Sequence[Turn]],
    images: Sequence[Sequence[Image.Image]],
    inserted: int = 0,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A batch for the host, through its own processor.

    Args:
        processor: the host's.
        conversations: the turns of B conversations.
        images: for each its decoded images.
        inserted: characters that the processor itself writes behind the last image of a text.

    Returns:
        The host's inputs by name (`input_ids` (B, L), `attention_mask`, pixels, ...), padded on the right, and labels
        (B, L): the token where it belongs to an answer, else -100.

    Raises:
        ValueError: the template does not fit, or the processor does not say where its placeholders went.
    """
    rendered = [find_answers(processor, turns) for turns in conversations]
    inputs = _processed(processor, [one.text for one in rendered], images)
    offsets = inputs.pop("offset_mapping")
    moved = inputs.pop(MOVED, None)
    if any(images) and moved is None:
        raise ValueError(
            f"host: {type(processor).__name__} does not say where its image placeholders went, so answers cannot be "
            "found among its tokens; such a host cannot be tuned here"
        )
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, one in enumerate(rendered):
        tokens = [
            (number, int(start), int(end))
            for number, (start, end) in enumerate(offsets[row].tolist())
            if inputs["attention_mask"][row, number] and end > start
        ]
        for span, stop in zip(one.spans, one.stops, strict=True):
            first, last = (_expanded(position, moved[row] if moved else (), inserted) for position in span)
            chosen = [number for number, start, end in tokens if start < last and end > first]
            labels[row, chosen] = inputs["input_ids"][row, chosen]
            if stop:
                labels[row, chosen[-1] + 1] = processor.tokenizer.eos_token_id
    return inputs, labels


def _processed(
    processor: ProcessorMixin, texts: list[str], images: Sequence[Sequence[Image.Image]]
) -> dict[str, torch.Tensor]:
    tokenizer = processor.tokenizer
    # A template that writes the start token itself must not get a second one from the tokenizer.
    begins = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
    nested = [list(row) for row in images] if any(images) else None
    made = processor(
        images=nested,
        text=texts,
        images_kwargs={"return_tensors": "pt"},
        text_kwargs={
            "padding": True,
            "padding_side": "right",
            "add_special_tokens": not begins,
            "return_offsets_mapping": True,
        },
        return_text_replacement_offsets=True,
    )
    # Made into tensors here: some processors would try it with the offsets, which are no numbers, and fail.
    kept = {name: value for name, value in made.items() if name != "labels"}
    return {name: value if name == MOVED else torch.as_tensor(value) for name, value in kept.items()}


def _expanded(position: int, moved: Sequence[dict[str, Any]], inserted: int) -> int:
    """A character's position after the processor has put in its placeholders, and behind the last of them more."""
    gained = 0
    for one in moved:
        if one["span"][1] <= position:
            gained = one["new_span"][1] - one["span"][1]
    behind = bool(moved) and position >= moved[-1]["span"][1]
    return position + gained + inserted * behind
