"""The model: the configs of its parts, its first weights, and what its export needs to know."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import (
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
    SwinConfig,
)

from cloc.config import Config
from cloc.config.model import ModelConfig, TextConfig, VisionConfig
from cloc.factory import concepts
from cloc.factory.fields import shared_fields
from cloc.models import pretrained
from cloc.models.configuration import LEGACY_END, ClocConfig, ClocVisionConfig
from cloc.models.pretraining import ClocDetectorForPreTraining, ClocForPreTraining
from cloc.tokenizer import check_end, load_tokenizer
from cloc.towers.timm import make_timm_config


def make_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """The tokenizer, cutting at the text tower's context.

    Raises:
        ValueError: it is not to be had, or does not end texts with its end token.
    """
    text = config.model.text
    fresh = text.source is None and config.model.source is None
    tokenizer = load_tokenizer(text.tokenizer, fresh if text.lower_case is None else text.lower_case)
    tokenizer.model_max_length = text.context
    check_end(tokenizer, text.tokenizer)
    return tokenizer


def make_tower_config(config: Config) -> PreTrainedConfig:
    """The vision tower's config: from the starting weights, else from the run's numbers."""
    vision = config.model.vision
    if vision.source is not None:
        theirs = pretrained.tower_config(vision.source, vision.image_size, vision.timm_args, vision.drop_path)
        _refuse_other_shape("model.vision", vision, vision_shape(theirs))
        return theirs
    if vision.timm is not None:
        paths = {"drop_path_rate": vision.drop_path} if vision.drop_path else {}
        return make_timm_config(vision.timm, vision.image_size, {**paths, **vision.timm_args})
    side = 224 if vision.image_size is None else vision.image_size
    if vision.depths is not None:
        return SwinConfig(
            image_size=side,
            patch_size=vision.patch_size,
            embed_dim=vision.width,
            depths=list(vision.depths),
            num_heads=[vision.heads * 2**stage for stage in range(len(vision.depths))],
            window_size=vision.window,
            mlp_ratio=vision.mlp_ratio,
            hidden_act=vision.hidden_act,
            drop_path_rate=vision.drop_path,
        )
    kind = CLIPVisionConfig if vision.style == "clip" else SiglipVisionConfig
    return kind(
        hidden_size=vision.width,
        intermediate_size=int(vision.width * vision.mlp_ratio),
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=side,
        patch_size=vision.patch_size,
        hidden_act=vision.hidden_act,
    )


def vision_shape(tower: PreTrainedConfig) -> dict[str, object]:
    """A tower's shape in the words of the config's `model.vision`, as far as they can say it."""
    if tower.model_type == "timm_wrapper":
        return {"style": "timm", "timm": tower.architecture}
    shape: dict[str, object] = {"patch_size": tower.patch_size, "hidden_act": tower.hidden_act}
    if tower.model_type == "swin":
        swin = {"depths": tuple(tower.depths), "heads": tower.num_heads[0], "window": tower.window_size}
        return {**shape, **swin, "style": "swin", "width": tower.embed_dim, "mlp_ratio": tower.mlp_ratio}
    style = "siglip" if tower.model_type == "siglip_vision_model" else "clip"
    return {**shape, **_transformer_shape(tower), "style": style}


def _transformer_shape(tower: PreTrainedConfig) -> dict[str, object]:
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "heads": tower.num_attention_heads,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
        "hidden_act": tower.hidden_act,
    }


SHAPE = (
    "style", "patch_size", "width", "layers", "heads", "mlp_ratio", "hidden_act", "depths", "window", "timm"
)  # fmt: skip
"""Fields of the config that starting weights decide."""


def _refuse_other_shape(where: str, asked: VisionConfig | TextConfig, theirs: Mapping[str, object]) -> None:
    """A field that is not left at its default says what the starting weights have, or is refused.

    Raises:
        ValueError: one says otherwise.
    """
    for name in SHAPE:
        field = type(asked).model_fields.get(name)
        value = getattr(asked, name, None)
        if field is None or value == field.default or value == theirs.get(name):
            continue
        has = f"has {theirs[name]!r}" if name in theirs else "decides that itself"
        raise ValueError(f"{where}.{name} {value!r}: {where}.source {asked.source} {has}; leave {name} out")


def make_text_config(config: Config, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The text tower's config: from the starting weights, else from the run's numbers."""
    text = config.model.text
    if text.source is not None:
        theirs = pretrained.text_config(text.source)
        if theirs.max_position_embeddings < text.context or theirs.vocab_size < len(tokenizer):
            raise ValueError(
                f"model.text.source {text.source}: has {theirs.max_position_embeddings} positions and "
                f"{theirs.vocab_size} tokens, the run asks for {text.context} and {len(tokenizer)}; "
                f"set model.text.context={theirs.max_position_embeddings}, or its own model.text.tokenizer"
            )
        end, own = tokenizer.eos_token_id, theirs.eos_token_id
        if own == LEGACY_END and end == len(tokenizer) - 1:  # the largest id, where such a tower pools
            theirs.eos_token_id = own = end
        if own != end or end == LEGACY_END:
            pools = "at the largest token" if own == LEGACY_END else f"at token {own}"
            raise ValueError(
                f"model.text.source {text.source}: it pools {pools}, the tokenizer's end token is {end} of "
                f"{len(tokenizer)}; name the tower's own tokenizer in model.text.tokenizer"
            )
        _refuse_other_shape("model.text", text, _transformer_shape(theirs))
        return theirs
    if tokenizer.eos_token_id == LEGACY_END:
        raise ValueError(
            f"model.text.tokenizer {text.tokenizer}: its end token has the id {LEGACY_END}, for which transformers' "
            "CLIP text tower pools at the largest token instead; use another tokenizer, such as clip"
        )
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text.width,
        intermediate_size=int(text.width * text.mlp_ratio),
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        max_position_embeddings=text.context,
        hidden_act=text.hidden_act,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model_config(config: Config, tokenizer: PreTrainedTokenizerBase) -> ClocConfig:
    """The model's own config; no weight is made or loaded."""
    vision_config = ClocVisionConfig(
        tower=make_tower_config(config).to_dict(),
        projection_dim=config.model.embed_dim,
        has_prompter=config.objective in ("cloc", "joint"),
        has_box_head=bool(config.loss.grounding),
        **shared_fields(config.model.prompter, ClocVisionConfig, "prompter_"),
    )
    return ClocConfig(
        vision_config=vision_config.to_dict(),
        text_config=make_text_config(config, tokenizer).to_dict(),
        logit_scale_init_value=config.model.logit_scale_init,
        logit_bias_init_value=config.model.logit_bias_init if config.loss.form == "sigmoid" else None,
        share_temperature=config.model.share_temperature,
        objective=config.objective,
        detector_config=concepts.detector_config(config).to_dict() if config.alternates else None,
    )


def make_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> tuple[ClocForPreTraining, list[str]]:
    """The model with its starting weights, and what was loaded from where."""
    model = scratch_model(make_model_config(config, tokenizer), config.run.seed)
    if config.model.vision.position_init == "sincos":
        torch.manual_seed(config.run.seed)
        pretrained.sincos_start(model)
    notes = [] if config.model.source is None else pretrained.start_whole(model, config.model.source)
    if config.model.vision.source is not None:
        notes += pretrained.start_vision(model, config.model.vision.source)
    if config.model.text.source is not None:
        notes += pretrained.start_text(model, config.model.text.source)
        if config.model.logit_scale_init != ModelConfig().logit_scale_init:
            torch.nn.init.constant_(model.logit_scale, config.model.logit_scale_init)
            notes.append("logit_scale as model.logit_scale_init says")
    return model, notes or ["all weights from scratch"]


def make_empty_model(config: Config, tokenizer: PreTrainedTokenizerBase) -> ClocForPreTraining:
    """The model for weights that are put in afterwards; nothing is loaded from where it once started."""
    model_config = make_model_config(config, tokenizer)
    return _model_class(model_config)(model_config)


def _model_class(model_config: ClocConfig) -> type[ClocForPreTraining]:
    return ClocForPreTraining if model_config.detector_config is None else ClocDetectorForPreTraining


def scratch_model(model_config: ClocConfig, seed: int) -> ClocForPreTraining:
    """A model whose towers start alike with and without a Prompter, and a Prompter with and without a box head, so
    that objectives are compared from one start.
    """
    torch.manual_seed(seed)
    detects, boxes = model_config.detector_config is not None, model_config.vision_config.has_box_head
    whole = ClocConfig(**model_config.to_dict())
    whole.vision_config.has_box_head = True
    model = _model_class(whole)(whole)
    if not boxes:
        model.vision.box_head, model.vision.config.has_box_head = None, False
        model.config.vision_config.has_box_head = False
    if detects or model_config.vision_config.has_prompter:
        plain = ClocConfig(**model_config.to_dict())
        plain.vision_config.has_prompter, plain.detector_config = False, None
        torch.manual_seed(seed)
        model.load_state_dict(ClocForPreTraining(plain).state_dict(), strict=False)
    return model


def export_detection_size(config: Config) -> tuple[int, int] | None:
    """(short, long) side of a detection image in pixels, for the export's processor; None without a detector."""
    return concepts.detection_size(config, make_tower_config(config)) if config.alternates else None
