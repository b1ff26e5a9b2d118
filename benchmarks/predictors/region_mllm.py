"""An MLLM whose folder has region tokens (`regions/`, made by `mllm_bridge.tune`): asked about a box by `<region>`.

The one place where the benchmarks know the bridge: what a `<region>` stands for is worked out by hooks on the host,
which only the bridge has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.predictors.contract import Boxes
from benchmarks.predictors.mllm import MAX_NEW_TOKENS, TransformersMllm
from cloc.box_text import BoxTextFormat

REGIONS = "regions/config.json"
TOKEN = "<region>"


def has_regions(folder: Path | None) -> bool:
    """Whether a host's folder holds a region module; a name on the hub, None, does not."""
    return folder is not None and (folder / REGIONS).is_file()


class RegionMllm(TransformersMllm):
    """Answers about whole images as any MLLM, and about boxes through its region prompts."""

    answers_regions = True

    def __init__(
        self, folder: Path, device: str, batch_size: int, box_format: BoxTextFormat, question: str, region_question: str
    ) -> None:
        from mllm_bridge.regions import RegionHost

        self.regions = RegionHost.from_pretrained(folder, device)
        self.model, self.processor = self.regions.host, self.regions.processor
        self.device, self.batch_size, self.box_format, self.question = device, batch_size, box_format, question
        self.region_question = region_question.replace("{}", TOKEN)
        self.check_template(folder)

    @torch.inference_mode()
    def answer_regions(
        self, images: Sequence[Image.Image], boxes_xyxy: Sequence[Boxes], questions: Sequence[str]
    ) -> list[list[str]]:
        """For each of B RGB images with (K, 4) boxes the K answers to its question, which holds one `<region>`."""
        pairs = [
            (image, box, question)
            for image, boxes, question in zip(images, boxes_xyxy, questions, strict=True)
            for box in boxes
        ]
        answers: list[str] = []
        for start in range(0, len(pairs), self.batch_size):
            part = pairs[start : start + self.batch_size]
            inputs = self.regions.prepare(
                [self._prompt(question) for _, _, question in part],
                [[image] for image, _, _ in part],
                [[tuple(float(value) for value in box)] for _, box, _ in part],
            )
            made = self.regions.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            answers += self._decoded(made, inputs["input_ids"].shape[1])
        rest = iter(answers)
        return [[next(rest) for _ in boxes] for boxes in boxes_xyxy]

    def _decoded(self, made: Any, asked: int) -> list[str]:
        if not isinstance(made, torch.Tensor):  # answers in words
            return [text.strip() for text in made]
        new = made[:, asked:] if made.shape[1] > asked else made
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
