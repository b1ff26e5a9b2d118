"""Kosmos-2 through transformers: phrase grounding by its own prompt, boxes by its processor's own readout.

A box is two of 32 x 32 cells, upper left and lower right, and a corner is the centre of its cell (Peng et al. 2023,
arXiv 2306.14824). The prompt `<grounding><phrase> a dog</phrase>` is continued with the cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import Kosmos2ForConditionalGeneration

from benchmarks.predictors.fitting import load_hf_model
from benchmarks.predictors.mllm import MAX_NEW_TOKENS
from cloc.box_text import Reading
from cloc.structures import Box

FAMILY = "kosmos-2"
GROUNDED = "<grounding><phrase> {}</phrase>"
"""How a box is asked for, as the model was trained to give it."""
ANSWERED = "Question: {} Answer:"
"""How anything else is asked, as its authors do."""
SIDE = 32
"""Cells a side."""


@dataclass(frozen=True)
class Cells:
    """Kosmos-2's way of writing boxes; `processor` reads them."""

    processor: Any
    name: str = f"cells-{SIDE}-image"

    def write(self, box_xyxy: Sequence[float], size: tuple[int, int]) -> str:
        """A box as the two cells that hold its corners.

        Args:
            box_xyxy: pixels of the original image.
            size: its (width, height).
        """
        ends = (size[0], size[1]) * 2
        shares = [value / end for value, end in zip(box_xyxy, ends, strict=True)]
        first, last = (_cell(shares[0], shares[1]), _cell(shares[2], shares[3]))
        return f"<object><patch_index_{first:04d}><patch_index_{last:04d}></object>"

    def read(self, text: str, size: tuple[int, int]) -> Reading:
        """The boxes of an answer, in pixels of the original image; a box without extent is none.

        Args:
            text: the answer with its tags.
            size: (width, height) of the image in pixels.
        """
        boxes, failures = list[Box](), Counter[str]()
        for _, _, found in self.processor.post_process_generation(text)[1]:
            for x0, y0, x1, y1 in found:
                if x0 < x1 and y0 < y1:
                    boxes.append((x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]))
                else:
                    failures["empty_box"] += 1
        if not boxes and not failures:
            failures["no_box"] += 1
        return Reading(tuple(boxes), failures)


class Kosmos:
    """Greedy decoding; the answer keeps the prompt and the tags, for the phrase belongs to what is read."""

    kind = "mllm"
    name = "kosmos2-greedy"

    def __init__(self, place: str, device: str, batch_size: int, question: str | None = None) -> None:
        self.model, self.processor = load_hf_model(Kosmos2ForConditionalGeneration, place, device)
        self.device, self.batch_size, self.question = device, batch_size, question or GROUNDED
        self.box_format = Cells(self.processor)

    @torch.inference_mode()
    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], max_new_tokens: int | None = None
    ) -> list[str]:
        """See `MllmPredictor.answer`; a question that begins with `<grounding>` goes in as it is."""
        prompts, answers = [self._prompt(question) for question in questions], [""] * len(questions)
        for rows in self._batches(prompts):
            asked = [prompts[row] for row in rows]
            inputs = self.processor(text=asked, images=[images[row] for row in rows], return_tensors="pt")
            made = self.model.generate(
                **inputs.to(self.device), do_sample=False, max_new_tokens=max_new_tokens or MAX_NEW_TOKENS
            )
            for row, text in zip(rows, self.processor.batch_decode(made, skip_special_tokens=True), strict=True):
                whole = self.processor.post_process_generation(text, cleanup_and_extract=False).strip()
                grounded = prompts[row].startswith("<grounding>")
                answers[row] = whole if grounded else whole.rpartition("Answer:")[2].strip()
        return answers

    def _batches(self, prompts: Sequence[str]) -> Iterator[list[int]]:
        """Rows of prompts of equal length: behind padding the model counts positions wrongly as it generates."""
        by_length = dict[int, list[int]]()
        for row, prompt in enumerate(prompts):
            by_length.setdefault(len(self.processor.tokenizer(prompt)["input_ids"]), []).append(row)
        for rows in by_length.values():
            yield from (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))

    def _prompt(self, question: str) -> str:
        return question if question.startswith("<grounding>") else ANSWERED.format(question)


def _cell(across: float, down: float) -> int:
    column, row = (min(SIDE - 1, max(0, int(share * SIDE))) for share in (across, down))
    return row * SIDE + column
