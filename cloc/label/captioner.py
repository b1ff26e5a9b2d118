"""Captions by any image-text-to-text model of transformers, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from cloc.label.models import describe_model, load_config, load_model


class Captioner(Protocol):
    """Whatever writes captions."""

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption an image (RGB, any size); empty where the model wrote nothing."""


class ModelCaptioner:
    """A transformers model; the most probable words, so that equal images give equal captions."""

    def __init__(self, model: Any, processor: Any, prompt: str, tokens: int) -> None:
        self.model, self.processor, self.tokens = model, processor, tokens
        self.text = prompt
        self.chats = bool(getattr(processor, "chat_template", None))
        if self.chats:
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            self.text = processor.apply_chat_template(asked, add_generation_prompt=True)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """As `Captioner.caption`."""
        text = {"text": [self.text] * len(images)} if self.chats else {}  # models without a chat go on from nothing
        sides = {"padding": True, "padding_side": "left"} if self.chats else {}
        inputs = self.processor(images=list(images), return_tensors="pt", **text, **sides)
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            written = self.model.generate(**inputs, max_new_tokens=self.tokens, do_sample=False)
        if self.chats:
            written = written[:, inputs["input_ids"].shape[1] :]
        return [" ".join(caption.split()) for caption in self.processor.batch_decode(written, skip_special_tokens=True)]


def describe_captioner(name: str) -> dict[str, Any]:
    """What the card says about the captioner; reads its config only.

    Raises:
        ValueError: there is no such model, or it writes no texts about images.
    """
    config = load_config(name, "captioner")
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ValueError(
            f"--captioner {name}: expected an image-text-to-text model of transformers, got one of type "
            f"{config.model_type!r}; leave --captioner out to keep the given captions"
        )
    return describe_model(name, config)


def load_captioner(name: str, prompt: str, tokens: int, device: str = "cpu", precision: str = "fp32") -> Captioner:
    """Load a captioner; safetensors only.

    Raises:
        ValueError: its weights or its processor cannot be loaded.
    """
    model, processor = load_model(AutoModelForImageTextToText, name, "captioner", precision)
    return ModelCaptioner(model.to(device).eval(), processor, prompt, tokens)
