"""What a task may ask of an MLLM, and the readout of any that transformers loads as image-text-to-text.

Letters: Q questions, each about one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from benchmarks.predictors.contract import Boxes
from benchmarks.predictors.fitting import load_hf_model
from cloc.box_text import FILE, BoxTextFormat

CONVENTIONS = {
    "0-1": BoxTextFormat("unit", padded=False),
    "0-1000": BoxTextFormat("thousand", padded=False),
    "pixels": BoxTextFormat("pixels", padded=False),
}
"""Words of `--coordinates` for hosts that declare nothing: shares, thousandths or pixels of the original image."""
QUESTION = "Where is {}?"
"""How a box is asked for, with `{}` where the phrase goes."""
REGION_QUESTION = "What is {}?"
"""How an MLLM with region tokens is asked what is in a box, with `{}` where the region goes."""
MAX_NEW_TOKENS = 128


class MllmPredictor(Protocol):
    """One MLLM. `kind` is `mllm`.

    Attributes:
        box_format: how it writes and reads boxes.
        question: how it is asked for the box of a phrase, with `{}` where the phrase goes.
    """

    kind: str
    box_format: BoxTextFormat
    question: str

    @property
    def name(self) -> str:
        """Short name, the same for the same way of asking."""

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """Q answers in words, greedy."""


class RegionMllmPredictor(MllmPredictor, Protocol):
    """One MLLM with region tokens.

    Attributes:
        region_question: how it is asked what is in a box, with `{}` where the region goes.
    """

    region_question: str

    def answer_regions(
        self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes], questions: Sequence[str]
    ) -> list[list[str]]:
        """For each of B images with (K, 4) boxes, K answers in words to its question."""


class TransformersMllm:
    """Asks through the host's own chat template, one user turn, greedy decoding."""

    kind = "mllm"
    name = "chat-greedy"
    answers_regions = False
    """Whether `answer_regions` works."""

    def __init__(
        self,
        place: str,
        device: str,
        batch_size: int,
        box_format: BoxTextFormat = CONVENTIONS["0-1"],
        question: str = QUESTION,
    ) -> None:
        self.model, self.processor = load_hf_model(AutoModelForImageTextToText, place, device, same_processor=False)
        self.device, self.batch_size, self.box_format, self.question = device, batch_size, box_format, question
        self.check_template(place)

    def check_template(self, place: object) -> None:
        """Refuse a processor that does not know how its host is talked to.

        Raises:
            ValueError: it has no chat template.
        """
        if getattr(self.processor, "chat_template", None) is None:
            raise ValueError(f"{place}: expected a processor with a chat template, found none; add chat_template.jinja")

    @torch.inference_mode()
    def answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], max_new_tokens: int | None = None
    ) -> list[str]:
        """See `MllmPredictor.answer`."""
        answers: list[str] = []
        for start in range(0, len(questions), self.batch_size):
            part = slice(start, start + self.batch_size)
            prompts = [self._prompt(question) for question in questions[part]]
            inputs = self.processor(
                images=[[image] for image in images[part]],
                text=prompts,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(self.device)
            made = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens or MAX_NEW_TOKENS)
            new = made[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return answers

    def _prompt(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True)


def declares_box_format(folder: Path | None) -> bool:
    """Whether a host says how it writes boxes; a name on the hub, None, does not."""
    return folder is not None and (folder / FILE).is_file()


def find_box_format(folder: Path | None, asked: str | None) -> BoxTextFormat:
    """What a host's folder declares, else what was asked for, else shares of the image.

    Args:
        folder: of the host; None for a name on the hub, which declares nothing.
        asked: one of `CONVENTIONS`, None where the command line says nothing.

    Raises:
        ValueError: the folder declares another convention than the one asked for.
    """
    if folder is None or not declares_box_format(folder):
        return CONVENTIONS[asked or "0-1"]
    declared = BoxTextFormat.load(folder)
    if asked is not None and CONVENTIONS[asked] != declared:
        raise ValueError(
            f"--coordinates {asked}: {folder / FILE} declares {declared.name}; leave the option out, or declare the "
            "convention again with `python -m mllm_bridge.box_text`"
        )
    return declared
