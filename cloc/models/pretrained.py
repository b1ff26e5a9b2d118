"""Starting weights of both towers: from scratch, or from what others made (see `sources`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, PreTrainedConfig
from transformers.models.auto.image_processing_auto import get_image_processor_config

from cloc.models.configuration import ClocConfig, mend_end
from cloc.models.modeling import ClocModel, ClocVisionModel
from cloc.models.prompter import encode_points, make_patch_boxes
from cloc.towers import open_clip, sources
from cloc.towers.adapt import fit_normalisation, fit_positions
from cloc.towers.sources import Source, Weights, parse_source
from cloc.towers.timm import make_timm_config, read_timm_weights
from cloc.towers.tower import PREFIX_TOKENS, TOWERS

OWN = ("cloc", "cloc_vision_model")
"""Exports of this kit."""
RANDOM = ("drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout")
"""Drawn anew in each step: the paper has none (CLOC Table A), and N ranks would not give the gradients of one."""
TIMM_RANDOM = ("drop_rate", "drop_path_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate")
"""The same among the arguments of a timm tower."""
TOLD = {
    "vision": ("model_type", "architecture", "hidden_act", "num_attention_heads", "num_heads", "window_size"),
    "text": ("hidden_act", "num_attention_heads", "eos_token_id"),
    "Prompter": ("prompter_kind", "prompter_pool", "prompter_token_positions", "prompter_max_cycles"),
    "detector": ("strides", "anchor_scale", "normalize"),
}
"""What weights do not show by their shapes, and without which they are those of another function."""


@torch.no_grad()
def sincos_start(model: ClocModel) -> None:
    """Start a ViT from scratch with positions that already say where a patch lies (sine and cosine of its centre).

    They stay learnable and the tower stays a plain CLIP or SigLIP tower; other towers keep their library's own start.
    Patch embeddings start at unit scale beside them; with transformers' own start a position is a fourteenth of a
    patch's content, and small runs learn slower.
    """
    if model.vision.tower.config.model_type not in PREFIX_TOKENS:
        return
    embeddings = model.vision.tower.embeddings
    patch, positions = embeddings.patch_embedding.weight, embeddings.position_embedding.weight
    patch.normal_(std=patch[0].numel() ** -0.5)
    boxes = make_patch_boxes(model.vision.grid, positions.device)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    positions.zero_()
    positions[-len(centres) :] = 0.5 * encode_points(centres, positions.shape[1], model.vision.grid[0] / 2)


def tower_config(
    source: str,
    image_size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
) -> PreTrainedConfig:
    """The vision tower's config inside `source`; what it drew anew in each step is off, all but `drop_path`.

    Args:
        source: see `sources`.
        image_size: side in pixels; None for the source's own.
        arguments: for a timm tower, see `timm.make_timm_config`.
        drop_path: share of dropped paths of a Swin, or of a timm tower.

    Raises:
        ValueError: `source` holds no vision tower that is known, or one that takes no such arguments.
    """
    config = _tower_config(source, image_size, dict(arguments or {}), drop_path)
    kind = config.model_type
    if drop_path and kind == "swin":
        config.drop_path_rate = drop_path
    if arguments and kind != "timm_wrapper":
        raise ValueError(f"model.vision.timm_args {dict(arguments)}: {source} is a {kind}, no timm tower; leave it out")
    if drop_path and kind not in ("swin", "timm_wrapper"):
        raise ValueError(
            f"model.vision.drop_path {drop_path:g}: {source} is a {kind}, which has no paths to drop; use 0, a Swin or "
            "a timm tower"
        )
    return config


def _tower_config(source: str, image_size: int | None, arguments: dict[str, Any], drop_path: float) -> PreTrainedConfig:
    where = parse_source(source)
    if drop_path:
        arguments = {"drop_path_rate": drop_path, **arguments}
    if where.kind == "timm":
        return make_timm_config(where.name, image_size, arguments)
    if where.kind == "open_clip":
        return open_clip.make_vision_config(where, image_size, arguments)
    config = sources.read_transformers_config(where)
    for name in ("vision_config", "tower"):
        config = getattr(config, name, config)
    if config.model_type not in TOWERS:
        raise ValueError(f"model.vision.source {source}: expected one of {sorted(TOWERS)}, got {config.model_type!r}")
    if config.model_type == "timm_wrapper":
        kept = {name: value for name, value in (config.model_args or {}).items() if name not in TIMM_RANDOM}
        return make_timm_config(config.architecture, image_size, {**kept, **arguments})
    if image_size is not None:
        config.image_size = image_size
    return _still(config)


def _still(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config without what is drawn anew in each step."""
    for name in RANDOM:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def text_config(source: str) -> PreTrainedConfig:
    """The CLIP text tower's config inside `source`.

    Raises:
        ValueError: `source` holds no CLIP text tower.
    """
    where = parse_source(source)
    if where.kind == "timm":
        raise ValueError(f"model.text.source {source}: timm has no text towers")
    if where.kind == "open_clip":
        return open_clip.make_text_config(where)
    config = sources.read_transformers_config(where)
    config = getattr(config, "text_config", config)
    if config.model_type != "clip_text_model":
        raise ValueError(f"model.text.source {source}: expected a clip_text_model, got {config.model_type!r}")
    mend_end(config)
    return _still(config)


@torch.no_grad()
def start_vision(model: ClocModel, source: str) -> list[str]:
    """Copy the vision tower of `source` into the model.

    Positions are interpolated to the model's grid, and another normalisation of the images is taken up by the weights.

    Returns:
        What was loaded, left over and changed, for the log.

    Raises:
        ValueError: weights are missing or do not fit; they are named.
    """
    where, tower = parse_source(source), model.vision.tower
    found, normalisation = _vision_weights(where, tower)
    state, wanted = dict(found.state), tower.state_dict()
    notes = [f"vision tower from {source}", sources.account_for_keys(found, source, "its keys")]
    notes.append(fit_positions(state, wanted))
    if normalisation is not None:
        notes.append(fit_normalisation(state, *normalisation))
    _copy(tower, state, source)
    return [note for note in notes if note] + _start_shared(model, found, where, ("vision.visual_projection",))


@torch.no_grad()
def start_whole(model: ClocModel, source: str) -> list[str]:
    """Copy every weight of an export of ours that the model has too: fine-tuning, or one objective after another.

    Returns:
        What was loaded, what is new and what was left over, for the log.

    Raises:
        ValueError: the folder is no export, or weights of one name differ in shape; they are named.
    """
    _check_function(model.config, source)
    file = Path(source) / "model.safetensors"
    if not file.is_file():
        raise ValueError(
            f"model.source {source}: expected an export's folder with model.safetensors, as runs/NAME/export"
        )
    theirs, ours = load_file(file), model.state_dict()
    shared = sorted(set(theirs) & set(ours))
    if not shared:
        raise ValueError(f"model.source {source}: not one weight has a name that this model knows")
    shapes = [(key, tuple(theirs[key].shape), tuple(ours[key].shape)) for key in shared]
    wrong = [(key, there, here) for key, there, here in shapes if there != here]
    if wrong:
        raise ValueError(sources.describe_misfit(source, wrong))
    model.load_state_dict({key: theirs[key] for key in shared}, strict=False)
    told = [f"{len(shared)} weights from {source}"]
    for what, keys in (("new", set(ours) - set(theirs)), ("left over", set(theirs) - set(ours))):
        parts = Counter(".".join(key.split(".")[:2]) for key in keys)
        if parts:
            told.append(f"{what}: " + ", ".join(f"{n} {part}" for part, n in sorted(parts.items())))
    return told


def _check_function(ours: ClocConfig, source: str) -> None:
    """Refuse weights whose config says another function than the run's, where shapes would not show it.

    Raises:
        ValueError: they differ; all fields are named.
    """
    if not (Path(source) / "config.json").is_file():
        return
    theirs = ClocConfig.from_pretrained(source, trust_remote_code=False)
    sides = [
        ("vision", theirs.vision_config.tower, ours.vision_config.tower),
        ("text", theirs.text_config, ours.text_config),
    ]
    if theirs.vision_config.has_prompter and ours.vision_config.has_prompter:
        sides.append(("Prompter", theirs.vision_config, ours.vision_config))
    if theirs.detector_config is not None and ours.detector_config is not None:
        sides.append(("detector", theirs.detector_config, ours.detector_config))
    wrong = []
    for part, there, here in sides:
        for name in TOLD[part]:
            told, asked = getattr(there, name, None), getattr(here, name, None)
            told, asked = (list(v) if isinstance(v, tuple) else v for v in (told, asked))
            wrong += [f"{part} {name} {told!r} there, {asked!r} here"] if told != asked else []
    if wrong:
        raise ValueError(
            f"model.source {source}: its weights were trained as another function: {'; '.join(wrong)}; set the "
            "config's fields as they were there"
        )


@torch.no_grad()
def start_text(model: ClocModel, source: str) -> list[str]:
    """Copy the text tower of `source` into the model; returns and raises as `start_vision`."""
    where = parse_source(source)
    if where.kind == "open_clip":
        found = open_clip.read_text_weights(where)
    elif sources.read_transformers_config(where).model_type == "cloc":
        found = sources.read_transformers_weights(ClocModel, where, "text.")
    else:
        found = sources.read_transformers_weights(CLIPTextModel, where)
    _copy(model.text, dict(found.state), source)
    notes = [f"text tower from {source}", sources.account_for_keys(found, source, "its keys")]
    return notes + _start_shared(model, found, where, ("text_projection", "logit_scale"))


Normalisation = tuple[Sequence[float], Sequence[float]]


def _vision_weights(where: Source, tower: torch.nn.Module) -> tuple[Weights, Normalisation | None]:
    """The tower's weights and the mean and deviation of the images that they were trained on, where that is known."""
    if where.kind == "timm":
        return read_timm_weights(where, tower.config), _told(timm.get_pretrained_cfg(where.name))
    if where.kind == "open_clip":
        return open_clip.read_vision_weights(where, tower.config), open_clip.read_normalisation(where)
    config = sources.read_transformers_config(where)
    if config.model_type in OWN:
        return sources.read_transformers_weights(ClocVisionModel, where, "tower."), None
    told = get_image_processor_config(where.name, local_files_only=where.local)
    normalisation = (told["image_mean"], told["image_std"]) if "image_mean" in told and "image_std" in told else None
    kind = tower.config.model_type
    if kind == "timm_wrapper":
        told = getattr(config, "pretrained_cfg", {})
        normalisation = (told["mean"], told["std"]) if "mean" in told and "std" in told else normalisation
    return sources.read_transformers_weights(type(tower), where), normalisation


def _told(config: Any) -> Normalisation | None:
    return None if config is None else (config.mean, config.std)


def _copy(tower: torch.nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    wanted = tower.state_dict()
    wrong = [(k, tuple(state[k].shape), tuple(v.shape)) for k, v in wanted.items() if k in state]
    wrong = [entry for entry in wrong if entry[1] != entry[2]]
    if wrong:
        raise ValueError(sources.describe_misfit(source, wrong))
    gone = sorted(set(wanted) - set(state))
    if gone:
        raise ValueError(f"{source}: {len(gone)} weights of {type(tower).__name__} are missing (first: {gone[0]})")
    tower.load_state_dict({name: state[name] for name in wanted})


def _start_shared(model: ClocModel, found: Weights, where: Source, names: tuple[str, ...]) -> list[str]:
    """Projections and temperature come along from a whole CLIP (or export) of the same shared width."""
    theirs = dict(found.shared)
    if where.kind == "transformers":
        kind = sources.read_transformers_config(where).model_type
        if kind not in ("clip", "cloc"):
            model.fresh |= {f"{name}.weight" for name in names}
            return [f"{', '.join(names)} new: {where.text} ({kind}) holds none"]
        other = (CLIPModel if kind == "clip" else ClocModel).from_pretrained(
            where.name, local_files_only=where.local, trust_remote_code=False, use_safetensors=True
        )
        theirs = {f"vision.{k}" if k.startswith("visual_projection") else k: v for k, v in other.state_dict().items()}
    mine, notes = model.state_dict(), []
    for name in names:
        key = name if name == "logit_scale" else f"{name}.weight"
        if key not in theirs or (theirs[key].numel() > 1 and theirs[key].shape != mine[key].shape):
            model.fresh.add(key)
        if key not in theirs:
            notes.append(f"{name} new: {where.text} holds none")
        elif theirs[key].numel() == 1 or theirs[key].shape == mine[key].shape:
            mine[key].copy_(theirs[key])
            notes.append(f"{name} from {where.text}")
        else:
            notes.append(f"{name} new: {tuple(theirs[key].shape)} there, {tuple(mine[key].shape)} here")
    return notes
