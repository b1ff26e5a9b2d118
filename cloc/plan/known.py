"""Shapes of published weights that a plan knows without a network; a plan needs no weight of them."""

from __future__ import annotations

from cloc import factory
from cloc.config import Config

KNOWN = {
    "openai/clip-vit-base-patch32": "open_clip:ViT-B-32-quickgelu:openai",
    "openai/clip-vit-base-patch16": "open_clip:ViT-B-16-quickgelu:openai",
    "openai/clip-vit-large-patch14": "open_clip:ViT-L-14-quickgelu:openai",
    "openai/clip-vit-large-patch14-336": "open_clip:ViT-L-14-336-quickgelu:openai",
}
"""Names of the hub to the same architecture in open_clip, whose package holds the shapes."""
_SWIN = {"style": "swin", "patch_size": 4, "window": 7}
KNOWN_SWINS = {
    "microsoft/swin-tiny-patch4-window7-224": {**_SWIN, "width": 96, "depths": (2, 2, 6, 2), "heads": 3},
    "microsoft/swin-large-patch4-window7-224-in22k": {**_SWIN, "width": 192, "depths": (2, 2, 18, 2), "heads": 6},
}
"""Names of the hub to the fields of `model.vision` that make the same shape from nothing."""


def with_known_shapes(config: Config) -> tuple[Config, list[str]]:
    """A config whose starting weights are at hand, or known by their shape; and a line where that was needed.

    Raises:
        ValueError: their config cannot be had and is not known.
    """
    try:
        factory.make_model_config(config, factory.make_tokenizer(config))
    except ValueError:
        parts, replaced = config.model, []
        for name in ("vision", "text"):
            part = getattr(parts, name)
            if part.source in KNOWN:
                parts = parts.model_copy(update={name: part.model_copy(update={"source": KNOWN[part.source]})})
                replaced.append(part.source)
            elif part.source in KNOWN_SWINS:
                made = part.model_copy(update={"source": None, **KNOWN_SWINS[part.source]})
                parts = parts.model_copy(update={name: made})
                replaced.append(part.source)
        if not replaced:
            raise
        shaped = config.model_copy(update={"model": parts})
        factory.make_model_config(shaped, factory.make_tokenizer(shaped))
        names = ", ".join(dict.fromkeys(replaced))
        return shaped, [f"weights     {names}: not reached; the plan takes the shape of the same architecture"]
    return config, []
