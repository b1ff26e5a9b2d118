"""What lmms-eval calls for the task `scenes_yesno`, in its own environment: nothing of the kit is imported."""

from __future__ import annotations

from typing import Any

from PIL import Image


def images_of(doc: dict[str, Any]) -> list[Image.Image]:
    """The scene in RGB; `photo` is its path."""
    return [Image.open(doc["photo"], formats=("JPEG", "PNG", "WEBP")).convert("RGB")]


def question_of(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> str:
    """The question as it is."""
    return doc["text"]


def verdict(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """POPE's rule (Li et al. 2023): yes, unless the first sentence holds `No`, `no` or `not` as a word."""
    words = results[0].strip().split(".")[0].replace(",", "").split(" ")
    said = "no" if {"No", "no", "not"} & set(words) else "yes"
    return {"accuracy": float(said == doc["label"])}
