"""Starting weights: a transformers CLIP, a SigLIP vision tower, or an export of ours, by folder or hub name."""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    PreTrainedConfig,
    SiglipVisionModel,
)

from cloc.models.modeling import ClocModel, ClocVisionModel
from cloc.models.prompter import patch_boxes, point_code
from cloc.models.tower import PREFIX_TOKENS


@torch.no_grad()
def sincos_start(model: ClocModel) -> None:
    """Start a tower from scratch with positions that already say where a patch lies (sine and cosine of its centre).

    They stay learnable and the tower stays a plain CLIP or SigLIP tower. Patch embeddings start at unit scale beside
    them; with transformers' own start a position is a fourteenth of a patch's content, and small runs learn slower.
    """
    embeddings = model.vision.tower.embeddings
    patch, positions = embeddings.patch_embedding.weight, embeddings.position_embedding.weight
    patch.normal_(std=patch[0].numel() ** -0.5)
    boxes = patch_boxes(model.vision.grid, positions.device)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    positions.zero_()
    positions[-len(centres) :] = 0.5 * point_code(centres, positions.shape[1], model.vision.grid[0] / 2)


def tower_config(source: str) -> PreTrainedConfig:
    """The vision tower's config inside `source`.

    Raises:
        ValueError: `source` holds no vision tower that is known.
    """
    config = _config(source)
    for name in ("vision_config", "tower"):
        config = getattr(config, name, config)
    if config.model_type not in PREFIX_TOKENS:
        raise ValueError(
            f"model.vision.source {source}: expected one of {sorted(PREFIX_TOKENS)}, got {config.model_type!r}"
        )
    return config


def text_config(source: str) -> PreTrainedConfig:
    """The CLIP text tower's config inside `source`."""
    config = _config(source)
    config = getattr(config, "text_config", config)
    if config.model_type != "clip_text_model":
        raise ValueError(f"model.text.source {source}: expected a clip_text_model, got {config.model_type!r}")
    return config


def _config(source: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, KeyError) as error:
        raise ValueError(
            f"starting weights {source}: no transformers folder with a config.json, and not to be had by that name "
            f"({str(error).splitlines()[0]})"
        ) from error


def _whole(cls: type, source: str) -> torch.nn.Module:
    """Load a tower and account for every key of its own."""
    try:
        model, report = cls.from_pretrained(source, output_loading_info=True, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"starting weights {source}: {str(error).splitlines()[0]}") from error
    if report["missing_keys"]:
        first = sorted(report["missing_keys"])[0]
        raise ValueError(
            f"{source}: {len(report['missing_keys'])} weights of {cls.__name__} are missing (first: {first})"
        )
    return model


def start_vision(model: ClocModel, source: str) -> list[str]:
    """Copy the vision tower of `source` into the model; returns what was loaded, for the log."""
    if _config(source).model_type in ("cloc", "cloc_vision_model"):
        tower = _whole(ClocVisionModel, source).tower
    else:
        style = model.vision.tower.config.model_type
        tower = _whole(CLIPVisionModel if style == "clip_vision_model" else SiglipVisionModel, source)
    model.vision.tower.load_state_dict(tower.state_dict())
    return [f"vision tower from {source}", *_start_projections(model, source, ("vision.visual_projection",))]


def start_text(model: ClocModel, source: str) -> list[str]:
    """Copy the text tower of `source` into the model; returns what was loaded, for the log."""
    whole = _config(source).model_type == "cloc"
    text = AutoModel.from_pretrained(source).text if whole else _whole(CLIPTextModel, source)
    model.text.load_state_dict(text.state_dict())
    return [f"text tower from {source}", *_start_projections(model, source, ("text_projection", "logit_scale"))]


@torch.no_grad()
def _start_projections(model: ClocModel, source: str, names: tuple[str, ...]) -> list[str]:
    """Projections and temperature come along from a whole CLIP (or export) of the same shared width."""
    kind = _config(source).model_type
    if kind not in ("clip", "cloc"):
        return [f"{', '.join(names)} new: {source} ({kind}) holds none"]
    other = CLIPModel.from_pretrained(source) if kind == "clip" else ClocModel.from_pretrained(source)
    theirs, mine, notes = other.state_dict(), model.state_dict(), []
    for name in names:
        key = name if name == "logit_scale" else f"{name}.weight"
        their_key = key.removeprefix("vision.") if kind == "clip" else key
        if theirs[their_key].numel() == 1 or theirs[their_key].shape == mine[key].shape:
            mine[key].copy_(theirs[their_key])
            notes.append(f"{name} from {source}")
        else:
            notes.append(f"{name} new: {tuple(theirs[their_key].shape)} there, {tuple(mine[key].shape)} here")
    return notes
