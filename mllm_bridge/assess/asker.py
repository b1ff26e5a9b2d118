"""Asks a finished host: questions of conversations in, greedy answers out, with or without region tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from cloc.box_text import BoxTextFormat
from cloc.images import read_photo
from cloc.model_folders import refusing_unreadable
from mllm_bridge.conversations.answers import render
from mllm_bridge.conversations.reading import Conversation
from mllm_bridge.hosts.loading import load_processor
from mllm_bridge.regions.host import RegionHost
from mllm_bridge.tune.batches import write_boxes

NEW_TOKENS = 24


class Asker:
    """Asks one host.

    Args:
        folder: of the host.
        region_tokens: regions are asked for by token instead of by coordinates.
    """

    def __init__(self, folder: Path, region_tokens: bool) -> None:
        self.box_format, self.region_tokens = BoxTextFormat.load(folder), region_tokens
        if region_tokens:
            self.host = RegionHost.from_pretrained(folder)
            self.processor = self.host.processor
        else:
            with refusing_unreadable(folder):
                self.host = AutoModelForImageTextToText.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
                ).eval()
            self.processor = load_processor(folder)

    @torch.no_grad()
    def ask(self, conversations: Sequence[Conversation]) -> list[str]:
        """The answer to each conversation's first question."""
        texts, images, regions = [], [], []
        for one in conversations:
            opened = [read_photo(file) for file in one.images]
            turns, kept = write_boxes(one.turns[:1], one.regions, opened, self.box_format, self.region_tokens)
            texts.append(render(self.processor, turns, ask=True))
            images.append(opened)
            regions.append([region.box for region in kept])
        if self.region_tokens:
            inputs: dict[str, Any] = self.host.prepare(texts, images, regions)
        else:
            flat = [image for own in images for image in own]
            how = {"padding": True, "padding_side": "left"}
            inputs = dict(self.processor(images=flat, text=texts, return_tensors="pt", text_kwargs=how))
        made = self.host.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = made[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(new, skip_special_tokens=True)
