"""Detectors with random weights, made here from their configs: ours on Swin-T, OWLv2 base, Grounding DINO tiny.

Speed does not depend on the weights. Nothing is downloaded: Grounding DINO's tokenizer is made of the names' own words,
one token each, so that 1,203 names take 31 passes of 256 tokens as LVIS's do.
"""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path
from typing import Any, cast

NUM_NAMES = 1203
WORDS = ("red", "blue", "old", "tiny", "round", "wooden", "glass", "paper", "dog", "cup", "tree", "ball", "hat", "box")
SHORT, LONG = 800, 1333
NUM_PASSES = 31


def make_names(count: int = NUM_NAMES) -> list[str]:
    """Different names, five and six words in turn: with the full stops, 39 fill Grounding DINO's 256 tokens."""
    five, six = combinations(WORDS, 5), combinations(WORDS, 6)
    pairs = islice(zip(five, six, strict=False), (count + 1) // 2)
    return [" ".join(words) for pair in pairs for words in pair][:count]


def write_cloc(folder: Path, tower_width: int = 96, text_width: int = 512, text_layers: int = 12) -> None:
    """`ClocForObjectDetection` on Swin-T with the head of DetCLIPv2 and its processor."""
    import torch
    from transformers import CLIPTextConfig, SwinConfig

    from cloc import ClocConfig, ClocDetectionImageProcessor, ClocForObjectDetection, ClocProcessor, ClocVisionConfig
    from cloc.tokenizer import load_tokenizer

    tokenizer = load_tokenizer("clip")
    tower = SwinConfig(image_size=224, embed_dim=tower_width, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=text_width, intermediate_size=4 * text_width, projection_dim=text_width,
        num_hidden_layers=text_layers, num_attention_heads=text_width // 64, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = ClocVisionConfig(tower=tower.to_dict(), projection_dim=256, has_prompter=False)
    torch.manual_seed(0)
    config = ClocConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), detector_config={}, objective="detclip"
    )
    model = ClocForObjectDetection(config)
    model.save_pretrained(folder)
    images = ClocDetectionImageProcessor(  # type: ignore[call-arg]  # the library types its own settings only
        do_pad=True, do_center_crop=False, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224},
        detection_size={"shortest_edge": SHORT, "longest_edge": LONG}, detection_divisor=model.canvas_divisor,
    )  # fmt: skip
    ClocProcessor(images, tokenizer).save_pretrained(folder)


def write_owlv2(folder: Path) -> None:
    """OWLv2 base, patches of 16, at its 960 pixels a side."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    from cloc.tokenizer import load_tokenizer

    vision = {"image_size": 960, "patch_size": 16}
    config = Owlv2Config(text_config={}, vision_config=vision, projection_dim=512)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    tokenizer = load_tokenizer("clip")
    tokenizer.model_max_length = cast(Any, config.text_config).max_position_embeddings
    Owlv2Processor(Owlv2ImageProcessor(), tokenizer).save_pretrained(folder)


def write_grounding_dino(folder: Path) -> None:
    """Grounding DINO tiny: Swin-T, BERT base, 900 queries."""
    from transformers import (  # type: ignore[attr-defined]  # BertTokenizerFast is loaded lazily
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    backbone = SwinConfig(  # type: ignore[call-arg]  # taken by the class above it
        image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_indices=[2, 3, 4]
    )
    config = GroundingDinoConfig(backbone_config=backbone.to_dict(), text_config=BertConfig().to_dict())
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    # The model looks for BERT's ids of [CLS], [SEP], full stop and question mark to tell the names apart.
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    words = dict(enumerate(WORDS, start=2000))
    size = cast(Any, config.text_config).vocab_size
    vocabulary = {{**fixed, **words}.get(row, f"[unused{row}]"): row for row in range(size)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True)
    GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer).save_pretrained(folder)


def make_photo() -> Any:
    """A noisy RGB picture of 1333 x 800 pixels."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (SHORT // 8, LONG // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((LONG, SHORT))
