"""The part of the proof that needs no weights: do config and processor say what the tower is?

Run on the plan before anything is written, and again on the files that were written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from cloc.towers.probe import GEOMETRY_FIELDS, SCALE_FIELDS, describe_geometry, make_probe_images, read_size
from mllm_bridge.encoder import Encoder
from mllm_bridge.hosts.family import FeatureLayer, HostFamily

ROUNDING = 0.02
"""Largest difference between two ways of normalising one colour: less than one grey level of 255."""


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


def compare(name: str, found: Any, expected: Any) -> Check:
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
    checks = check_fields(family, config, processor, encoder, layer)
    checks += check_image_processor(family, config, processor, encoder, layer)
    return checks + check_pictures(family, config, processor, encoder)


def check_fields(
    family: HostFamily, config: dict[str, Any], processor: ProcessorMixin, encoder: Encoder, layer: FeatureLayer
) -> list[Check]:
    """Field by field: type, size, patch, width, and what the family's settings ask for."""
    vision = config.get("vision_config", {})
    wanted = family.settings(config, encoder.facts, layer)
    stated = ("model_type", "hidden_size", "patch_size", "image_size")
    checks = [
        *(compare(f"config vision_config.{name}", vision.get(name), encoder.config[name]) for name in stated),
        *(compare(f"config vision_config.{name}", vision.get(name), value) for name, value in wanted.vision.items()),
        *(compare(f"config {name}", config.get(name), value) for name, value in wanted.config.items()),
        *(
            compare(f"processor {name}", getattr(processor, name, None), value)
            for name, value in wanted.processor.items()
        ),
    ]
    token, known = family.image_token_id(config), family.placeholder_id(processor)
    same = Check("image token", token == known, f"config {token!r}, processor {known!r}")
    return [*checks, same]


def check_image_processor(
    family: HostFamily, config: dict[str, Any], processor: ProcessorMixin, encoder: Encoder, layer: FeatureLayer
) -> list[Check]:
    """Normalisation and geometry of the host's image processor against the encoder's own.

    A host that cuts tiles keeps its own geometry; then size, scale and normalisation have to be the encoder's.
    """
    found, own = processor.image_processor, encoder.image_processor
    checks = [
        compare("mean", list(found.image_mean), list(own.image_mean)),
        compare("deviation", list(found.image_std), list(own.image_std)),
    ]
    if family.own_image_processor:
        checks.append(compare("geometry", describe_geometry(found), describe_geometry(own)))
    wanted = family.settings(config, encoder.facts, layer).image_processor
    checks += [compare(f"image processor {name}", _field(found, name), value) for name, value in wanted.items()]
    for name in (*(GEOMETRY_FIELDS if family.own_image_processor else ()), *SCALE_FIELDS):
        checks.append(compare(f"image processor {name}", _field(found, name), _field(own, name)))
    video = getattr(processor, "video_processor", None)
    if video is not None:
        checks.append(compare("mean of videos", list(video.image_mean), list(own.image_mean)))
        checks.append(compare("deviation of videos", list(video.image_std), list(own.image_std)))
    return checks


def _field(image_processor: Any, name: str) -> Any:
    """A field in a form that can be compared: sizes as plain dictionaries, what is not set as False."""
    value = getattr(image_processor, name, None)
    if name in ("size", "crop_size"):
        return read_size(image_processor, name)
    return value or False


def check_pictures(
    family: HostFamily, config: dict[str, Any], processor: ProcessorMixin, encoder: Encoder
) -> list[Check]:
    """Pixels and placeholders on pictures of several aspect ratios."""
    checks = []
    for name, picture in make_probe_images().items():
        inputs = processor(images=[[picture]], text=[make_prompt(processor)], return_tensors="pt")
        checks.append(_check_pixels(family, encoder, name, inputs))
        try:
            expected = family.expected_tokens(config, encoder.facts, inputs, picture.height, picture.width)
        except ValueError as error:
            checks.append(Check(f"placeholders of the {name} picture", False, str(error)))
            continue
        placeholders = int((inputs["input_ids"] == family.placeholder_id(processor)).sum())
        checks.append(compare(f"placeholders of the {name} picture", placeholders, expected))
        announced = family.counted(processor, picture.height, picture.width)
        if announced is not None:
            once, each = family.announced_extra
            extra = once + each * family.tiles(inputs, encoder.facts)
            checks.append(compare(f"placeholders announced for the {name} picture", announced, expected + extra))
    if not family.own_image_processor:
        checks.append(_check_uniform(processor, encoder))
    return checks


def _check_pixels(family: HostFamily, encoder: Encoder, name: str, inputs: Any) -> Check:
    """The encoder's own pixels; from a host that cuts tiles, tiles of the tower's size."""
    found, size = inputs["pixel_values"], encoder.facts.image_size
    if not family.own_image_processor:
        fits = tuple(found.shape[-3:]) == (3, size, size)
        return Check(f"pixels of the {name} picture", fits, f"{tuple(found.shape)}, the tower takes {size} x {size} px")
    own = torch.as_tensor(
        encoder.image_processor(images=make_probe_images()[name], return_tensors="pt")["pixel_values"]
    )
    same = own.shape == found.shape and torch.equal(own, found)
    return Check(f"pixels of the {name} picture", same, "equal" if same else _difference(found, own))


def _check_uniform(processor: ProcessorMixin, encoder: Encoder) -> Check:
    """A square of one colour: however it is cut and resized, both processors have to give the same three numbers."""
    side = encoder.facts.image_size
    square = Image.new("RGB", (side, side), (200, 90, 30))
    found = processor(images=[[square]], text=[make_prompt(processor)], return_tensors="pt")["pixel_values"]
    found = found.reshape(-1, 3, side, side)[0].mean(dim=(1, 2))
    own = torch.as_tensor(encoder.image_processor(images=square, return_tensors="pt")["pixel_values"])[0]
    largest = float((found - own.mean(dim=(1, 2))).abs().max())
    return Check("values of one colour", largest < ROUNDING, f"they differ by up to {largest:.2g}")


def make_prompt(processor: ProcessorMixin) -> str:
    """A prompt with one image, without a chat template."""
    return f"{processor.image_token}\nWhat is in the picture?"


def _difference(found: torch.Tensor, own: torch.Tensor) -> str:
    if found.shape != own.shape:
        return f"the host makes {tuple(found.shape)}, the encoder's own processor {tuple(own.shape)}"
    return f"the host's pixels differ from the encoder's own by up to {(found - own).abs().max():.3g}"
