"""The part of the proof that needs no weights: do config and processor say what the tower is?

Run on the plan before anything is written, and again on the files that were written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import ProcessorMixin

from mllm_bridge.encoders import Encoder
from mllm_bridge.hosts.family import FeatureLayer, HostFamily
from mllm_bridge.pictures import pictures
from mllm_bridge.probe import GEOMETRY_FIELDS, SCALE_FIELDS, TowerFacts, geometry, size_of


class VerifyError(ValueError):
    """The host and its tower do not agree; the message names everything that is wrong."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: short, as `patch size`.
        passed: whether it is as it has to be.
        detail: what was found, and what was expected where it differs.
    """

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The check as plain values."""
        return asdict(self)


def require(checks: list[Check], what: str) -> None:
    """Go on only if every check passed.

    Raises:
        VerifyError: one line for each that failed.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        lines = "\n".join(f"  {check.name}: {check.detail}" for check in failed)
        raise VerifyError(f"{what}: {len(failed)} of {len(checks)} checks failed, nothing is declared done:\n{lines}")


def equal(name: str, found: Any, expected: Any) -> Check:
    """A check that one value is what it has to be."""
    passed = found == expected
    return Check(name, passed, f"{found}" if passed else f"found {found!r}, the tower asks for {expected!r}")


def check_plan(
    family: HostFamily, config: dict[str, Any], processor: ProcessorMixin, encoder: Encoder, layer: FeatureLayer
) -> list[Check]:
    """Everything that config and processor say about the tower, against what the tower is.

    Args:
        family: the host's family.
        config: content of the host's config.json.
        processor: the host's processor.
        encoder: the tower that is, or goes, in.
        layer: the hidden state that the host reads.
    """
    checks = check_fields(family, config, processor, encoder.facts, layer)
    checks += check_image_processor(processor.image_processor, encoder.image_processor)
    return checks + check_pictures(family, processor, encoder)


def check_fields(
    family: HostFamily, config: dict[str, Any], processor: ProcessorMixin, facts: TowerFacts, layer: FeatureLayer
) -> list[Check]:
    """Field by field: size, patch, width, and what the family's settings ask for."""
    vision = config.get("vision_config", {})
    wanted = family.settings(facts, layer)
    checks = [
        equal("config vision_config.model_type", vision.get("model_type"), facts.model_type),
        equal("config vision_config.hidden_size", vision.get("hidden_size"), facts.width),
        equal("config vision_config.patch_size", vision.get("patch_size"), facts.patch_size),
        equal("config vision_config.image_size", vision.get("image_size"), facts.image_size),
        *(equal(f"config {name}", config.get(name), value) for name, value in wanted.config.items()),
        *(
            equal(f"processor {name}", getattr(processor, name, None), value)
            for name, value in wanted.processor.items()
        ),
    ]
    token, known = family.image_token_id(config), getattr(processor, "image_token_id", None)
    same = Check("image token", token == known, f"config {token!r}, processor {known!r}")
    return [*checks, same]


def check_image_processor(found: Any, own: Any) -> list[Check]:
    """Normalisation and geometry of the host's image processor against the encoder's own."""
    checks = [
        equal("mean", list(found.image_mean), list(own.image_mean)),
        equal("deviation", list(found.image_std), list(own.image_std)),
        equal("geometry", geometry(found), geometry(own)),
    ]
    for name in (*GEOMETRY_FIELDS, *SCALE_FIELDS):
        values = [size_of(p, name) if name == "size" else (getattr(p, name, None) or False) for p in (found, own)]
        checks.append(equal(f"image processor {name}", *values))
    return checks


def check_pictures(family: HostFamily, processor: ProcessorMixin, encoder: Encoder) -> list[Check]:
    """Pixels and placeholders on pictures of several aspect ratios."""
    checks = []
    expected = family.image_tokens(encoder.facts)
    for name, picture in pictures().items():
        own = torch.as_tensor(encoder.image_processor(images=picture, return_tensors="pt")["pixel_values"])
        inputs = processor(images=picture, text=prompt(processor), return_tensors="pt")
        same = own.shape == inputs["pixel_values"].shape and torch.equal(own, inputs["pixel_values"])
        detail = "equal" if same else _difference(inputs["pixel_values"], own)
        checks.append(Check(f"pixels of the {name} picture", same, detail))
        placeholders = int((inputs["input_ids"] == processor.image_token_id).sum())
        checks.append(equal(f"placeholders of the {name} picture", placeholders, expected))
        announced = family.counted(processor, picture.height, picture.width)
        checks.append(equal(f"placeholders announced for the {name} picture", announced, expected))
    return checks


def prompt(processor: ProcessorMixin) -> str:
    """A prompt with one image, without a chat template."""
    return f"{processor.image_token}\nWhat is in the picture?"


def _difference(found: torch.Tensor, own: torch.Tensor) -> str:
    if found.shape != own.shape:
        return f"the host makes {tuple(found.shape)}, the encoder's own processor {tuple(own.shape)}"
    return f"the host's pixels differ from the encoder's own by up to {(found - own).abs().max():.3g}"
