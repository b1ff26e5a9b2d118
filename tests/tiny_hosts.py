"""Tiny hosts of every family, with random weights: each put together as its published models are set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2Config,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PerceptionLMImageProcessor,
    PerceptionLMProcessor,
    PerceptionLMVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from cloc.towers.wrapper import WrappedTowerConfig
from mllm_bridge.hosts import FAMILIES
from mllm_bridge.hosts.family import IMAGE
from mllm_bridge.hosts.named import FIELDS
from mllm_bridge.hosts.tiny import make_tiny
from mllm_bridge.hosts.tiny_parts import TinyParts, make_counting_processor

AYA_TOKENS = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "TILE_GLOBAL", "TILE")
Built = tuple[PreTrainedModel, ProcessorMixin]


def build_aya_vision(parts: TinyParts) -> Built:
    """At most four tiles."""
    config = AyaVisionConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        vision_feature_select_strategy="default",
    )
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessor(size=parts.side, max_patches=4),
        parts.tokenizer,
        patch_size=2 * parts.patch,
        img_size=parts.size,
        chat_template=parts.chat_template,
    )
    return AyaVisionForConditionalGeneration(config), processor


def build_cohere2_vision(parts: TinyParts) -> Built:
    """At most four tiles."""
    config = Cohere2VisionConfig(
        vision_config=parts.tower,
        text_config=Cohere2Config(**parts.text),
        image_token_id=parts.tokenizer.image_token_id,
        alignment_intermediate_size=2 * parts.text["hidden_size"],
    )
    tokens = parts.size // parts.patch // config.downsample_factor
    processor = Cohere2VisionProcessor(
        Cohere2VisionImageProcessor(size=parts.side, max_patches=4, patch_size=tokens),
        parts.tokenizer,
        chat_template=parts.chat_template,
    )
    return Cohere2VisionForConditionalGeneration(config), processor


def build_fast_vlm(parts: TinyParts) -> Built:
    """Starts with a wrapped tower, since the stock one is a convolutional network of timm."""
    wrapped = WrappedTowerConfig(
        tower=parts.tower,
        hidden_size=parts.tower.hidden_size,
        patch_size=parts.patch,
        image_size=parts.size,
        num_hidden_layers=parts.tower.num_hidden_layers,
        skip=1,
        as_map=True,
    )
    config = FastVlmConfig(
        vision_config=wrapped,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=parts.patches,
    )
    processor = make_counting_processor(LlavaProcessor, parts, parts.image_processor, IMAGE, 0)
    return FastVlmForConditionalGeneration(config), processor


def build_gemma3(parts: TinyParts) -> Built:
    """Pooled to two by two tokens."""
    config = Gemma3Config(
        vision_config=parts.tower,
        text_config=Gemma3TextConfig(**parts.text),
        mm_tokens_per_image=4,
        boi_token_index=parts.tokenizer.boi_token_id,
        eoi_token_index=parts.tokenizer.eoi_token_id,
        image_token_index=parts.tokenizer.image_token_id,
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size=parts.side),
        parts.tokenizer,
        chat_template=parts.chat_template,
        image_seq_length=4,
    )
    return Gemma3ForConditionalGeneration(config), processor


def build_idefics3(parts: TinyParts) -> Built:
    """With a tower of its own class, of the same size as the one given, and at most two tiles a side."""
    config = Idefics3Config(
        vision_config={name: getattr(parts.tower, name) for name in FIELDS},
        text_config=LlamaConfig(**parts.text),
        image_token_id=parts.tokenizer.image_token_id,
        tie_word_embeddings=True,
    )
    tokens = (parts.size // parts.patch // config.scale_factor) ** 2
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 2 * parts.size}, max_image_size={"longest_edge": parts.size}),
        parts.tokenizer,
        image_seq_len=tokens,
        chat_template=parts.chat_template,
    )
    return Idefics3ForConditionalGeneration(config), processor


def build_internvl(parts: TinyParts) -> Built:
    """With a tower of its own class, of the same size as the one given, and at most four tiles."""
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    vision = {name: getattr(parts.tower, name) for name in shape}
    tokens = (parts.size // parts.patch // 2) ** 2
    config = InternVLConfig(
        vision_config={**vision, "image_size": parts.size, "patch_size": parts.patch},
        text_config=LlamaConfig(**parts.text),
        image_token_id=parts.tokenizer.context_image_token_id,
        image_seq_length=tokens,
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=parts.side, max_patches=4),
        parts.tokenizer,
        InternVLVideoProcessor(size=parts.side),
        image_seq_length=tokens,
        chat_template=parts.chat_template,
    )
    return InternVLForConditionalGeneration(config), processor


def build_llava_next(parts: TinyParts) -> Built:
    """Three grids of two tiles or four."""
    grids = tiny_grids(parts.size)
    config = LlavaNextConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=grids,
        image_seq_length=parts.patches,
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": parts.size}, crop_size=parts.side, image_grid_pinpoints=grids
    )
    processor = make_counting_processor(LlavaNextProcessor, parts, images, IMAGE, 1)
    return LlavaNextForConditionalGeneration(config), processor


def build_llava_onevision(parts: TinyParts) -> Built:
    """Three grids of two tiles or four."""
    grids = tiny_grids(parts.size)
    config = LlavaOnevisionConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.image_token_id,
        video_token_index=parts.tokenizer.video_token_id,
        image_grid_pinpoints=grids,
        vision_feature_select_strategy="default",
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=parts.side, image_grid_pinpoints=grids),
        parts.tokenizer,
        LlavaOnevisionVideoProcessor(size=parts.side),
        num_image_tokens=parts.patches + 1,
        vision_feature_select_strategy="default",
        chat_template=parts.chat_template,
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def build_paligemma(parts: TinyParts) -> Built:
    """The processor adds its place tokens to the tokenizer, so it is made first; no template is kept."""
    parts.image_processor.image_seq_length = parts.patches
    processor = PaliGemmaProcessor(parts.image_processor, parts.tokenizer)
    config = PaliGemmaConfig(
        vision_config=parts.tower,
        text_config=GemmaConfig(**{**parts.text, "vocab_size": len(parts.tokenizer)}),
        image_token_index=processor.image_token_id,
        projection_dim=parts.text["hidden_size"],
        hidden_size=parts.text["hidden_size"],
    )
    return PaliGemmaForConditionalGeneration(config), processor


def build_perception_lm(parts: TinyParts) -> Built:
    """At most four tiles, pooled two by two."""
    parts.tower.model_args = {"embed_dim": parts.tower.hidden_size}
    config = PerceptionLMConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_id=parts.tokenizer.image_token_id,
        video_token_id=parts.tokenizer.video_token_id,
        projector_pooling_ratio=2,
    )
    processor = PerceptionLMProcessor(
        PerceptionLMVideoProcessor(size=parts.side),
        PerceptionLMImageProcessor(tile_size=parts.size, size=parts.side, max_num_tiles=4),
        parts.tokenizer,
        patch_size=parts.patch,
        pooling_ratio=2,
        chat_template=parts.chat_template,
    )
    return PerceptionLMForConditionalGeneration(config), processor


def build_smolvlm(parts: TinyParts) -> Built:
    """With a tower of its own class, of the same size as the one given, and at most two tiles a side."""
    config = SmolVLMConfig(
        vision_config={name: getattr(parts.tower, name) for name in FIELDS},
        text_config=LlamaConfig(**parts.text),
        image_token_id=parts.tokenizer.image_token_id,
        tie_word_embeddings=True,
    )
    edges = {"size": {"longest_edge": 2 * parts.size}, "max_image_size": {"longest_edge": parts.size}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**edges),
        parts.tokenizer,
        SmolVLMVideoProcessor(**edges),
        image_seq_len=(parts.size // parts.patch // config.scale_factor) ** 2,
        chat_template=parts.chat_template,
    )
    return SmolVLMForConditionalGeneration(config), processor


def build_video_llava(parts: TinyParts) -> Built:
    """Set as Video-LLaVA is: layer -2, CLS dropped."""
    config = VideoLlavaConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.image_token_id,
        video_token_index=parts.tokenizer.video_token_id,
        image_seq_length=parts.patches,
    )
    processor = VideoLlavaProcessor(
        parts.image_processor,
        VideoLlavaVideoProcessor(size={"shortest_edge": parts.size}, crop_size=parts.side),
        parts.tokenizer,
        patch_size=parts.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=parts.chat_template,
    )
    return VideoLlavaForConditionalGeneration(config), processor


def build_vipllava(parts: TinyParts) -> Built:
    """With two layers instead of five, since the tower is a small one."""
    config = VipLlavaConfig(
        vision_config=parts.tower,
        text_config=LlamaConfig(**parts.text),
        image_token_index=parts.tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=parts.patches,
        vision_feature_layer=[-2, -1],
    )
    processor = make_counting_processor(LlavaProcessor, parts, parts.image_processor, IMAGE, 1)
    return VipLlavaForConditionalGeneration(config), processor


def tiny_grids(size: int) -> list[list[int]]:
    """The (height, width) grids, in pixels, of a tiny host with tiles of `size` pixels: two tiles or four."""
    return [[size, 2 * size], [2 * size, size], [2 * size, 2 * size]]


BUILDERS: dict[str, Callable[[TinyParts], Built]] = {
    "aya_vision": build_aya_vision,
    "cohere2_vision": build_cohere2_vision,
    "fast_vlm": build_fast_vlm,
    "gemma3": build_gemma3,
    "idefics3": build_idefics3,
    "internvl": build_internvl,
    "llava": FAMILIES["llava"].build_tiny,
    "llava_next": build_llava_next,
    "llava_onevision": build_llava_onevision,
    "paligemma": build_paligemma,
    "perception_lm": build_perception_lm,
    "smolvlm": build_smolvlm,
    "video_llava": build_video_llava,
    "vipllava": build_vipllava,
}
SPECIAL_TOKENS: dict[str, dict[str, str]] = {
    "aya_vision": {f"aya_{index}": token for index, token in enumerate(AYA_TOKENS)},
    "cohere2_vision": {
        "image_token": "<image>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    },
    "gemma3": {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
    "idefics3": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    },
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "llava_onevision": {"image_token": "<image>", "video_token": "<video>"},
    "paligemma": {"image_token": "<image>"},
    "perception_lm": {"image_token": "<image>", "video_token": "<video>"},
    "smolvlm": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
        "video_token": "<video>",
    },
    "video_llava": {"image_token": "<image>", "video_token": "<video>"},
}
"""What a tokenizer of a family has to name, by name."""


def make_tiny_of(out: Path, family: str) -> Path:
    """A tiny host of one family, see `make_tiny`."""
    return make_tiny(out, family=FAMILIES[family], build=BUILDERS[family], special_tokens=SPECIAL_TOKENS.get(family))
