"""The config's `loss`: weights and settings of the terms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloc.config.strict import Strict


class DetectionLossConfig(Strict):
    """Weights and settings of the detection losses (DetCLIPv2 Eq. 2 to 6, Table 9)."""

    alignment: float = Field(1.0, ge=0, description="weight of the focal alignment")
    giou: float = Field(2.0, ge=0, description="weight of the box loss; detection only")
    centerness: float = Field(1.0, ge=0, description="weight of the centerness loss; detection only")
    word_region: float = Field(0.1, ge=0, description="weight of the word-region contrast; pairs only")
    nearest_when_none: bool = Field(False, description="a box without an anchor takes its nearest one")
    temperature: float = Field(0.5, gt=0, description="of the word-region contrast")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    num_proposals: int = Field(100, ge=1, le=1 << 20, description="k, regions an image keeps for its words")
    proposal_score: Literal[
        "similarity_batch", "similarity_own", "centerness", "similarity_centerness", "foreground", "iou"
    ] = Field(
        "similarity_batch",
        description="what ranks an image's regions; foreground and iou: a class-agnostic score, learnt from detection",
    )
    objectness: float = Field(1.0, ge=0, description="weight of that score's loss; detection only")
    proposal_nms: float = Field(
        0.6, gt=0, le=1, description="overlap above which the weaker region is left out; the paper is silent: ATSS's"
    )
    matching: Literal["max", "softmax", "largest_box"] = Field("max", description="how a word finds its region")
    matching_temperature: float = Field(
        1.0, gt=0, description="of matching=softmax, over a word's regions; the paper is silent: the plain similarities"
    )
    direction: Literal["text_to_image", "image_to_text", "both"] = Field(
        "text_to_image",
        description="captions name few of the objects, so the other direction is left out; image_to_text: by its own "
        "similarity, each region's best word; both: the mean of the two losses",
    )


class LossConfig(Strict):
    """Weights and settings of the losses (CLOC Eq. 1 to 4)."""

    image_text: float = Field(1.0, ge=0, description="weight of L_CLIP")
    region_text: float = Field(1.0, ge=0, description="weight of L_CLOC, times the share of images with regions")
    grounding: float = Field(1.0, ge=0, description="weight of L_grounding, times the share of images with regions")
    grounding_regions: Literal["unique", "all"] = Field(
        "unique",
        description="which drawn regions L_grounding sees: those whose phrase stands once in their image, since one "
        "phrase cannot have two boxes; or all of them, as the paper",
    )
    distillation: float = Field(
        0.0, ge=0, description="weight of staying near the image embeddings of the starting weights; clip and cloc"
    )
    regions_per_image: int = Field(4, ge=1, le=1 << 16, description="M, regions drawn an image and step")
    filter_threshold: float = Field(
        0.9, gt=0, le=1, description="texts closer than this are no negatives of each other; 1: no such test"
    )
    filter_warmup: int = Field(0, ge=0, le=10**12, description="steps before the cosine filter starts")
    filter_same_text: bool = Field(
        True, description="equal strings are no negatives of each other, from the first step; not a rule of the paper"
    )
    form: Literal["softmax", "sigmoid"] = Field("softmax", description="sigmoid: SigLIP's, with a learnable bias")
    chunk: Annotated[int, Field(ge=1)] | Literal["auto", "none"] = Field(
        "auto", description="rows of the contrast in memory at a time; auto: tiles above 2,048 rows; none: all"
    )
    detection: DetectionLossConfig = DetectionLossConfig()
