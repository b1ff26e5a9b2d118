"""The config's `model`: shapes of the towers, the Prompter and the detector."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cloc.config.strict import Strict


class VisionConfig(Strict):
    """The vision tower; with `source` its shape comes from there: a field that says otherwise is refused."""

    source: str | None = Field(
        None,
        description="start from a transformers folder or hub name, an export, open_clip:ARCH:TAG_OR_FILE or "
        "timm:ARCH[:FILE]; none: from scratch",
    )
    style: Literal["clip", "siglip", "swin", "timm"] = Field(
        "clip",
        description="clip: ViT, CLS pooling; siglip: ViT, attention pooling; swin: windows, mean pooling; timm: `timm`",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=16_384,
        description="side of the canvas in pixels, a multiple of the patches; none: the source's, else 224",
    )
    patch_size: int = Field(
        16, ge=2, le=4_096, description="pixels; swin: 4, and its last stage has patches of 4 * 2^3"
    )
    width: int = Field(768, ge=8, le=65_536, description="D; swin: of stage 1, doubled with every stage")
    layers: int = Field(12, ge=1, le=1_000, description="blocks; swin: see depths")
    heads: int = Field(12, ge=1, le=1_024, description="attention heads; swin: of stage 1, doubled with every stage")
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    hidden_act: str = Field("gelu", description="activation of the MLP; OpenAI's weights use quick_gelu")
    depths: tuple[Annotated[int, Field(ge=1, le=1_000)], ...] | None = Field(
        None, min_length=1, max_length=8, description="swin only: blocks of each stage, such as [2, 2, 6, 2]"
    )
    window: int = Field(7, ge=2, le=1_024, description="swin only: side of a window in patches of its stage")
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="swin and timm: share of dropped paths (DetCLIPv2: 0.2), with `source` too; N ranks then do not "
        "draw as one",
    )
    timm: str | None = Field(
        None, description="timm only: architecture, from scratch; for its weights give source=timm:NAME instead"
    )
    timm_args: dict[str, Any] = Field(
        {}, description="timm only: arguments of timm.create_model that change the shape, such as {depth: 6}"
    )
    position_init: Literal["sincos", "normal"] = Field(
        "sincos",
        description="how positions of a ViT start; the paper is silent, small runs learn faster with sincos",
    )

    @model_validator(mode="after")
    def _style_is_whole(self) -> VisionConfig:
        if self.source is not None:
            return self
        if self.drop_path and self.style not in ("swin", "timm"):
            raise ValueError(
                f"model.vision.drop_path {self.drop_path:g}: style={self.style} has no paths to drop; use 0, or "
                "style=swin or timm"
            )
        if (self.style == "swin") != (self.depths is not None):
            raise ValueError(
                "model.vision: style=swin and depths belong together; Swin-T is style=swin patch_size=4 width=96 "
                "heads=3 depths=[2,2,6,2] window=7"
            )
        if (self.style == "timm") != (self.timm is not None):
            raise ValueError("model.vision: style=timm and timm=ARCHITECTURE belong together; give both or neither")
        return self


class TextConfig(Strict):
    """The text tower (a CLIP text transformer); with `source` as the vision tower."""

    source: str | None = Field(None, description="start from a transformers folder or hub name; none: from scratch")
    tokenizer: str = Field("clip", description="clip: CLIP's vocabulary, built in; else a folder or hub name")
    lower_case: bool | None = Field(
        None,
        description="texts in any case are read lower-cased, as CLIP's own tokenizer does and the paper did with T5's; "
        "none: so from scratch, with starting weights as their tokenizer does",
    )
    width: int = Field(512, ge=8, le=65_536)
    layers: int = Field(12, ge=1, le=1_000)
    heads: int = Field(8, ge=1, le=1_024)
    mlp_ratio: float = Field(4.0, gt=0, le=64)
    context: int = Field(77, ge=4, le=65_536, description="tokens; longer texts are cut")
    hidden_act: str = "gelu"


class PrompterConfig(Strict):
    """The paper is silent on these; design choices with their reasons."""

    kind: Literal["attention", "roi_align"] = Field(
        "attention", description="roi_align: the paper's ablation; boxes only, needs loss.grounding=0"
    )
    mlp_ratio: int = Field(4, ge=1, le=64)
    pool: Literal["prompt", "all"] = Field("prompt", description="prompt: an embedding depends on its own prompt only")
    token_positions: bool = Field(True, description="add the code of each patch's corners; decisive for small runs")
    max_cycles: float = Field(16.0, gt=0, description="highest frequency of the box code, cycles over the canvas")
    prompts: tuple[Literal["box", "point", "mask"], ...] = Field(
        ("box",),
        min_length=1,
        description="kinds of prompts, drawn for each region and epoch; masks are read from the shards",
    )

    @model_validator(mode="after")
    def _prompts_fit(self) -> PrompterConfig:
        if "box" not in self.prompts or len(set(self.prompts)) != len(self.prompts):
            raise ValueError(
                f"model.prompter.prompts: expected box and, each once, what goes beside it, got {list(self.prompts)}; "
                "such as [box, point, mask]"
            )
        if self.kind == "roi_align" and self.prompts != ("box",):
            raise ValueError("model.prompter: kind roi_align pools under boxes; use prompts=[box] or kind=attention")
        return self


class DetectorConfig(Strict):
    """Pyramid and head of the detector (DetCLIPv2 4.1, ATSS)."""

    width: int = Field(256, ge=8, le=65_536, description="channels of pyramid and head")
    strides: tuple[Annotated[int, Field(ge=1, le=4_096)], ...] = Field(
        (8, 16, 32, 64, 128), min_length=1, max_length=12, description="pixels, each twice the last"
    )
    num_convs: int = Field(4, ge=1, le=1_000, description="convolutions a branch")
    anchor_scale: float = Field(8.0, gt=0, description="side of an anchor in strides")
    deformable: bool = Field(True, description="the deformable convolution that joins the branches")
    normalize: bool = Field(False, description="cosine instead of dot product as similarity; the paper is silent")
    logit_scale_init: float | None = Field(None, description="logarithm of the first scale; none: unit deviation")
    prior: float = Field(0.01, gt=0, lt=1, description="first probability of every concept at every place")
    text_context: int = Field(16, ge=4, le=65_536, description="tokens of a concept")
    definitions: bool = Field(True, description="concepts are read as `name, definition`")

    @model_validator(mode="after")
    def _doubling(self) -> DetectorConfig:
        if any(b != 2 * a for a, b in itertools.pairwise(self.strides)):
            raise ValueError(f"model.detector.strides: expected each twice the one before, got {list(self.strides)}")
        return self


class ModelConfig(Strict):
    """Shapes of the model."""

    source: str | None = Field(
        None, description="start from an export of ours with the same towers; none: each tower from its own source"
    )
    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    prompter: PrompterConfig = PrompterConfig()
    detector: DetectorConfig = DetectorConfig()
    embed_dim: int = Field(
        512, ge=8, le=65_536, description="E, width of the space shared by images, regions and texts"
    )
    logit_scale_init: float = Field(2.6592, description="natural logarithm of the first inverse temperature")
    logit_bias_init: float = Field(-10.0, description="first bias; read by loss.form sigmoid only")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="how the towers attend")
    share_temperature: bool = Field(False, description="one temperature for the image and the region loss")
