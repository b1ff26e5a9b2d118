"""What decides the content of labelled shards. Two jobs with equal settings on equal shards write equal bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cloc.phrases import CHUNKERS, GENERIC_LISTS, LIMIT

CAPTION_PROMPT = "Describe the image in detail."
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class LabelSettings:
    """The parameters of a labelling job.

    Attributes:
        detector: folder or hub name of a zero-shot detector.
        captioner: folder or hub name of an image-text-to-text model; None keeps the given captions.
        caption_prompt: what the captioner is asked.
        caption_tokens: longest caption it may write, in its own tokens.
        chunker: `rules`, `spacy` or `nltk` (VESL's).
        generic_words: list of words that are no part of a phrase: `owlv2` (VESL's), `ours` or `none`.
        phrases: first phrases of a caption that are kept (VESL: 20).
        score: boxes with a confidence above this are kept (VESL: 0.1).
        nms: IoU above which the weaker of two boxes is left out, whatever their phrases; 0 for none (the paper names
            none).
        max_boxes: boxes an image, the most confident ones; 0 for no limit.
        size: side of the detector's input in pixels (VESL: 448).
        batch: images a forward pass.
        device: `cpu` or `cuda`.
        precision: of the models' weights and activations.
    """

    detector: str
    captioner: str | None = None
    caption_prompt: str = CAPTION_PROMPT
    caption_tokens: int = 96
    chunker: str = "rules"
    generic_words: str = "owlv2"
    phrases: int = LIMIT
    score: float = 0.1
    nms: float = 0.0
    max_boxes: int = 0
    size: int = 448
    batch: int = 8
    device: str = "cpu"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        rules = {
            "chunker": (self.chunker in CHUNKERS, f"one of {', '.join(CHUNKERS)}"),
            "generic_words": (self.generic_words in GENERIC_LISTS, f"one of {', '.join(GENERIC_LISTS)}"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "device": (self.device in ("cpu", "cuda"), "cpu or cuda"),
            "phrases": (self.phrases >= 1, "at least 1"),
            "caption_tokens": (self.caption_tokens >= 1, "at least 1"),
            "score": (0.0 <= self.score < 1.0, "0 or more and below 1"),
            "nms": (0.0 <= self.nms <= 1.0, "an IoU in [0, 1], 0 for none"),
            "max_boxes": (self.max_boxes >= 0, "0 (no limit) or more"),
            "size": (self.size >= 16, "at least 16 pixels"),
            "batch": (self.batch >= 1, "at least 1 image"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ValueError(f"--{name.replace('_', '-')}: expected {wanted}, got {getattr(self, name)!r}")

    def to_json(self) -> dict[str, Any]:
        """All parameters as plain data."""
        return asdict(self)
