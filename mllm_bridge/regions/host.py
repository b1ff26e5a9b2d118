"""A host that understands `<region>`: its tower runs once, for the image's tokens and the regions' embeddings.

Nothing of the host is changed: hooks read the tower's last layer on its way and put each region's embedding in the
place of its placeholder, between the host's own embedding and its language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from cloc.model_folders import refusing_unreadable
from mllm_bridge.conversations.answers import render
from mllm_bridge.conversations.reading import IMAGE, REGION, Turn
from mllm_bridge.regions.module import RegionModule
from mllm_bridge.regions.prompts import find_box, map_to_canvas


class RegionHooks:
    """Hooks on one host; between calls they hold nothing.

    Args:
        host: the whole host, as it is called.
        tower: its vision tower.
        language: its language model, which gets the embeddings.
        module: makes the embeddings.
        token_id: of `<region>`.
    """

    def __init__(
        self, host: nn.Module, tower: nn.Module, language: nn.Module, module: RegionModule, token_id: int
    ) -> None:
        self.module, self.token_id = module, token_id
        self._asked: tuple[torch.Tensor, torch.Tensor] | None = None
        self._last_layer = self._places = None
        self._handles = [
            host.register_forward_pre_hook(self._see_tokens, with_kwargs=True),
            tower.register_forward_pre_hook(self._ask_tower, with_kwargs=True),
            tower.register_forward_hook(self._see_tower),
            language.register_forward_pre_hook(self._put_in, with_kwargs=True),
        ]

    def set(self, boxes: torch.Tensor, image_of: torch.Tensor) -> None:
        """What the placeholders of the next call stand for: (R, 4) in [0, 1] of the canvas and (R,) images."""
        self._asked = (boxes, image_of)

    def clear(self) -> None:
        """Forget the last call."""
        self._asked = self._last_layer = self._places = None

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _see_tokens(self, host: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self._places = None if ids is None else ids == self.token_id
        found = 0 if self._places is None else int(self._places.sum())
        given = 0 if self._asked is None else len(self._asked[0])
        if found and found != given:
            raise ValueError(
                f"regions: the prompts hold {found} {REGION} placeholders, {given} regions were given; give one region "
                "for each (beam search and several answers a prompt repeat the prompts: ask without them)"
            )

    def _ask_tower(self, tower: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if self._asked is None:
            return None
        layers = kwargs.get("output_hidden_states")  # those that the host reads, by number, or all, or none
        if isinstance(layers, bool) or layers is None:
            return args, {**kwargs, "output_hidden_states": True}
        return args, {**kwargs, "output_hidden_states": [*([layers] if isinstance(layers, int) else layers), -1]}

    def _see_tower(self, tower: nn.Module, args: tuple, output: Any) -> None:
        if self._asked is not None:
            self._last_layer = output.hidden_states[-1]

    def _put_in(self, language: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if self._places is None or self._asked is None or not self._places.any():
            return None
        if self._last_layer is None:
            raise ValueError("regions: the prompts speak of regions, and no image was given")
        boxes, image_of = self._asked
        if int(image_of.max()) >= len(self._last_layer):
            raise ValueError(
                f"regions: a region of image {int(image_of.max())}, the tower saw {len(self._last_layer)} images"
            )
        embeds = self.module(self._last_layer, boxes, image_of)
        given = kwargs["inputs_embeds"]
        mask = self._places.unsqueeze(-1).expand_as(given)
        return args, {**kwargs, "inputs_embeds": given.masked_scatter(mask, embeds.to(given.dtype))}


class RegionHost(nn.Module):
    r"""A host with a region module, for asking.

        host = RegionHost.from_pretrained(folder)
        answers = host.answer(["What is <region>?"], [[image]], [[(10, 20, 60, 80)]])   # texts

    `prepare` and `generate` are the two steps of it, for prompts of one's own: `generate` returns token ids, the
    prompt's included, as every `generate` of transformers does.

    Args:
        host: the host.
        processor: its processor, whose tokenizer knows `<region>`.
        module: the region module.
        tower_path: where the tower sits in the host.
    """

    def __init__(self, host: PreTrainedModel, processor: ProcessorMixin, module: RegionModule, tower_path: str) -> None:
        super().__init__()
        self.host, self.processor, self.regions = host, processor, module
        token_id = find_region_token(processor)
        if token_id is None:
            raise ValueError(f"host: its tokenizer does not know {REGION}; attach the region module first")
        self.hooks = RegionHooks(host, host.get_submodule(tower_path), host.get_decoder(), module, token_id)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> RegionHost:
        """Load a host's folder with its `regions/`.

        Raises:
            ValueError: there is no region module in it.
        """
        from mllm_bridge.hosts import find_family
        from mllm_bridge.hosts.loading import load_processor
        from mllm_bridge.weights.folders import locate, read_json

        folder = locate(folder, "host")
        module = RegionModule.load(folder)
        family = find_family(read_json(folder / "config.json"), str(folder))
        with refusing_unreadable(folder):
            host = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        return cls(host, load_processor(folder), module, family.tower_path).eval().to(device)

    def prepare(
        self,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        regions: Sequence[Sequence[object]],
    ) -> dict[str, torch.Tensor]:
        """Inputs for `forward` and `generate`.

        Args:
            texts: prompts as the host's chat template writes them, with `<region>` where a region is meant.
            images: for each prompt its images.
            regions: for each prompt, in the order of its placeholders: a box, point or mask (see
                `regions.prompts.find_box`), in pixels of the original; `{"image": N, ...}` for another than the first.

        Returns:
            The host's inputs, padded on the left, with `region_boxes` (R, 4) and `region_image` (R,).

        Raises:
            ValueError: another number of regions than placeholders, or a region outside its image.
        """
        if not len(texts) == len(images) == len(regions):
            raise ValueError(
                f"regions: expected images and regions for each of {len(texts)} prompts, got {len(images)} and "
                f"{len(regions)} lists"
            )
        boxes, image_of, first = [], [], 0
        for text, own, asked in zip(texts, images, regions, strict=True):
            if text.count(REGION) != len(asked):
                raise ValueError(
                    f"regions: the prompt {text!r:.60} has {text.count(REGION)} placeholders {REGION}, "
                    f"{len(asked)} regions were given; give one region for each"
                )
            for prompt in asked:
                number = prompt.get("image", 0) if isinstance(prompt, dict) else 0
                if not 0 <= number < len(own):
                    raise ValueError(f"regions: a region of image {number}, the prompt has {len(own)} images")
                size = own[number].size
                boxes.append(map_to_canvas(self.processor.image_processor, [find_box(prompt, size)], size)[0])
                image_of.append(first + number)
            first += len(own)
        flat = [image for own in images for image in own]
        inputs = dict(
            self.processor(
                images=flat or None,
                text=list(texts),
                return_tensors="pt",
                text_kwargs={"padding": True, "padding_side": "left"},
            )
        )
        inputs["region_boxes"] = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
        inputs["region_image"] = torch.tensor(image_of, dtype=torch.long)
        device = self.host.device
        return {name: value.to(device) for name, value in inputs.items()}

    def forward(self, region_boxes: torch.Tensor, region_image: torch.Tensor, **inputs: torch.Tensor) -> Any:
        """The host's forward pass, with regions."""
        return self._call(self.host, region_boxes, region_image, inputs)

    @torch.no_grad()
    def generate(self, region_boxes: torch.Tensor, region_image: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """The host's `generate`, with regions; one answer a prompt, without beams.

        Args:
            region_boxes: (R, 4), of `prepare`.
            region_image: (R,), of `prepare`.
            inputs: the rest of `prepare`, and options of `generate`.

        Returns:
            (B, L) token ids, the prompts included; `answer` gives texts.
        """
        return self._call(self.host.generate, region_boxes, region_image, inputs)

    def answer(
        self,
        questions: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        regions: Sequence[Sequence[object]],
        max_new_tokens: int = 64,
        **options: Any,
    ) -> list[str]:
        """Ask, through the host's chat template, and read the answers.

        Args:
            questions: with `<region>` where a region is meant; `<image>` may be left out.
            images: for each question its images.
            regions: as `prepare` takes them.
            max_new_tokens: of an answer, at most.
            options: more of `generate`; greedy unless they say otherwise.

        Returns:
            A text for each question.

        Raises:
            ValueError: as `prepare`, or the host has no chat template.
        """
        turns = [
            Turn("user", text if IMAGE in text else f"{IMAGE}\n" * len(own) + text)
            for text, own in zip(questions, images, strict=True)
        ]
        texts = [render(self.processor, [turn], ask=True) for turn in turns]
        inputs = self.prepare(texts, images, regions)
        made = self.generate(**inputs, **{"do_sample": False, "max_new_tokens": max_new_tokens, **options})
        new = made[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def _call(self, function: Any, boxes: torch.Tensor, image_of: torch.Tensor, inputs: dict[str, Any]) -> Any:
        self.hooks.set(boxes, image_of)
        try:
            return function(**inputs)
        finally:
            self.hooks.clear()


def find_region_token(processor: ProcessorMixin) -> int | None:
    """The id of `<region>`, None where the tokenizer does not know it as one token."""
    ids = processor.tokenizer.get_vocab()
    return ids.get(REGION)


def add_region_token(host: PreTrainedModel, processor: ProcessorMixin) -> bool:
    """Teach the tokenizer `<region>`; the host's table of embeddings grows only if it has no spare row.

    The row is never trained: a region's embedding takes its place.

    Returns:
        Whether anything was changed.
    """
    if find_region_token(processor) is not None:
        return False
    processor.tokenizer.add_tokens([REGION], special_tokens=True)
    if len(processor.tokenizer) > host.get_input_embeddings().weight.shape[0]:
        host.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    return True
