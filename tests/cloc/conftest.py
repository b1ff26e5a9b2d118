"""What the tests of the detector share: a tiny detector, its processor, and hand-made batches."""

from collections.abc import Callable

import pytest
import torch
from transformers import CLIPTextConfig, CLIPVisionConfig, SwinConfig

from cloc.tokenizer import clip_tokenizer


def tower_of(kind: str) -> object:
    if kind == "swin":
        return SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4
        )
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )


@pytest.fixture
def detector_config() -> Callable[..., object]:
    """Makes the config of a tiny detector; keywords change fields of its `detector_config`."""
    from cloc import ClocConfig, ClocVisionConfig

    def make(tower: str = "vit", has_prompter: bool = True, **changes: object):
        vision = ClocVisionConfig(tower=tower_of(tower).to_dict(), projection_dim=16, has_prompter=has_prompter)
        text = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=49406,
            eos_token_id=49407,
            pad_token_id=49407,
        )
        detector = {
            "width": 16,
            "strides": (8, 16, 32),
            "num_convs": 2,
            "anchor_scale": 4.0,
            "text_context": 8,
            **changes,
        }
        return ClocConfig(
            vision_config=vision.to_dict(), text_config=text.to_dict(), detector_config=detector, objective="detclip"
        )

    return make


@pytest.fixture
def detector_model(detector_config) -> Callable[..., object]:
    """Makes a tiny `ClocForObjectDetection` with random weights from a fixed seed."""
    from cloc import ClocForObjectDetection

    def make(tower: str = "vit", **changes: object):
        torch.manual_seed(0)
        return ClocForObjectDetection(detector_config(tower, **changes))

    return make


@pytest.fixture
def detector_processor() -> Callable[..., object]:
    """Makes the processor of a tiny detector, with images of 96 to 128 pixels."""
    from cloc import ClocProcessor
    from cloc.models.detection_processing import make_detection_image_processor
    from cloc.models.processing import image_processor

    return lambda: ClocProcessor(make_detection_image_processor(image_processor(32), 96, 128, 32), clip_tokenizer())


@pytest.fixture
def concept_batch() -> Callable[..., object]:
    """Makes a `ConceptBatch` of noise: B images, up to M boxes each, U concepts; each image of `pairs` has two."""
    from cloc.structures import ConceptBatch

    def make(kind: str = "detection", images: int = 2, boxes: int = 3, concepts: int = 5, size=(96, 64), seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(images, boxes, 2, generator=generator) * 0.5
        high = low + torch.rand(images, boxes, 2, generator=generator) * 0.3 + 0.15
        mask = torch.ones(images, boxes, dtype=torch.bool)
        if images and boxes:
            mask[-1, -1] = False
        if kind == "pairs":
            mask[:] = False
        regions, paired = int(mask.sum()), images if kind == "pairs" and concepts else 0
        ids = torch.randint(10, 4000, (concepts, 6), generator=generator)
        ids[:, :1], ids[:, -1:] = 49406, 49407
        none = torch.zeros(0, dtype=torch.int64)
        return ConceptBatch(
            kind=kind,
            pixel_values=torch.randn(images, 3, size[1], size[0], generator=generator),
            extent=torch.ones(images, 2),
            boxes=torch.cat([low, high], dim=2) * mask.unsqueeze(2),
            boxes_mask=mask,
            label_box=torch.arange(regions),
            label_concept=torch.randint(max(concepts, 1), (regions,), generator=generator),
            concept_ids=ids,
            concept_attention=torch.ones_like(ids),
            concept_text_id=torch.arange(concepts) + 100,
            pair_image=torch.arange(paired).repeat_interleave(2),
            pair_concept=torch.randint(max(concepts, 1), (2 * paired,), generator=generator),
            caption_ids=none.view(0, 2),
            caption_attention=none.view(0, 2),
            caption_image=none,
        )

    return make
