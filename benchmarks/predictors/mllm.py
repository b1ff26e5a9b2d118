"""What a task may ask of an MLLM, and the reading of any that transformers loads as image-text-to-text.

Letters: Q questions, each about one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

CONVENTIONS = ("0-1", "0-1000", "pixels")
"""How a place is written into a question, xyxy: shares with three decimals, thousandths, or pixels of the original."""
MAX_NEW_TOKENS = 128


class MllmPredictor(Protocol):
    """One MLLM. `kind` is `mllm`."""

    kind: str
    convention: str

    @property
    def name(self) -> str:
        """Short name, the same for the same way of asking."""

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """Q answers in words, greedy."""


class TransformersMllm:
    """Asks through the host's own chat template, one user turn, greedy decoding."""

    kind = "mllm"
    name = "chat-greedy"

    def __init__(self, place: str, device: str, batch_size: int, convention: str = "0-1") -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(place).to(device).eval()
        self.processor: Any = AutoProcessor.from_pretrained(place)
        self.device, self.batch_size, self.convention = device, batch_size, convention
        if self.processor.chat_template is None:
            raise ValueError(f"{place}: expected a processor with a chat template, found none; add chat_template.jinja")

    @torch.inference_mode()
    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
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
            made = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            new = made[:, inputs["input_ids"].shape[1] :]
            answers += [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        return answers

    def _prompt(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True)


def written(box_xyxy: Sequence[float], size: tuple[int, int], convention: str) -> str:
    """A box of pixels as it stands in a question.

    Raises:
        ValueError: there is no such convention.
    """
    shares = [value / side for value, side in zip(box_xyxy, (*size, *size), strict=True)]
    if convention == "0-1":
        return "[" + ", ".join(f"{share:.3f}" for share in shares) + "]"
    if convention == "0-1000":
        return "[" + ", ".join(str(int(share * 1000)) for share in shares) + "]"
    if convention == "pixels":
        return "[" + ", ".join(str(round(value)) for value in box_xyxy) + "]"
    raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, got {convention!r}")
