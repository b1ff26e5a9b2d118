"""What the tests of the data engine share: tiny random detectors, image-text shards, a detector made of rules."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cloc.label.proposals import Proposals
from cloc.label.settings import LabelSettings
from cloc.label.shard import Labeller
from cloc.phrases import noun_phrases

WORDS = "dog cat ball red circle blue star grass a the and on".split()


@pytest.fixture(scope="session")
def tiny_owl(tmp_path_factory) -> Path:
    """A folder with a random OWLv2: patch 8, trained at 32 pixels."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    from cloc.tokenizer import load_tokenizer

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 49408, "max_position_embeddings": 16}
    config = Owlv2Config(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    folder = tmp_path_factory.mktemp("owl")
    Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    tokenizer = load_tokenizer("clip")
    tokenizer.model_max_length = 16
    Owlv2Processor(images, tokenizer).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# tiny\n")
    return folder


@pytest.fixture(scope="session")
def bert_tokenizer():
    """BERT's tokenizer over a few words; the special tokens have the numbers that Grounding DINO expects."""
    from transformers import BertTokenizer

    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    special |= {200 + i: word for i, word in enumerate(WORDS)}
    vocab = {special.get(i, f"[unused{i}]"): i for i in range(1030)}
    return BertTokenizer(vocab=vocab)


def _grounding_config(config_class, swin):
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = config_class(
        backbone_config=swin,
        text_config={**text, "model_type": "bert", "vocab_size": 1030},
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=3,
        num_feature_levels=2,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    return config


def _save_grounding(name: str, folder: Path, tokenizer) -> Path:
    import transformers as t

    torch.manual_seed(0)
    swin = t.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2, image_size=32, out_indices=[4]
    )
    config = _grounding_config(getattr(t, f"{name}Config"), swin)
    getattr(t, f"{name}ForObjectDetection")(config).eval().save_pretrained(folder)
    t.GroundingDinoProcessor(t.GroundingDinoImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_grounding_dino(tmp_path_factory, bert_tokenizer) -> Path:
    """A folder with a random Grounding DINO on a random Swin."""
    return _save_grounding("GroundingDino", tmp_path_factory.mktemp("grounding"), bert_tokenizer)


@pytest.fixture(scope="session")
def tiny_mm_grounding_dino(tmp_path_factory, bert_tokenizer) -> Path:
    """A folder with a random MM-Grounding DINO on a random Swin."""
    return _save_grounding("MMGroundingDino", tmp_path_factory.mktemp("mm"), bert_tokenizer)


class ColourProposer:
    """A detector of rules: one box a phrase, placed by the image's mean colour; slow when told to be."""

    def __init__(self, seconds: float = 0.0, bad: Callable[[list], bool] = lambda images: False) -> None:
        self.seconds, self.bad = seconds, bad

    def propose(self, images, phrases):
        time.sleep(self.seconds)
        if self.bad(images):
            raise RuntimeError("out of memory, say")
        return [self._one(image, row) for image, row in zip(images, phrases, strict=True)]

    def _one(self, image, row) -> Proposals:
        left = np.asarray(image).mean() / 255 * image.width / 2
        boxes = [(left, n, image.width - 1, n + 5.0) for n in range(len(row))]
        return Proposals(np.array(boxes), np.linspace(0.9, 0.2, len(row)), np.arange(len(row)))


@pytest.fixture
def rule_labeller() -> Callable[..., Callable[[str], Labeller]]:
    """Gives `make` for a job: a labeller without a model."""

    def given(settings: LabelSettings, **proposer: object) -> Callable[[str], Labeller]:
        return partial(_rules, settings, proposer)

    return given


def _rules(settings: LabelSettings, proposer: dict, device: str) -> Labeller:
    return Labeller(settings, ColourProposer(**proposer), None, noun_phrases)


@pytest.fixture
def pair_shards(spine_sample, tmp_path) -> Callable[..., Path]:
    """Writes shards of kind `pairs` and returns their folder."""
    from cloc.data.shards import write_shards

    def make(samples: int = 10, shard_size: int = 4, name: str = "pairs") -> Path:
        captions = ["a red circle and a blue star on grass", "a dog", "running", ""]
        made = (
            spine_sample(f"{i:04d}", size=(40 + i % 3, 30), caption=captions[i % 4], seed=i, source={"n": i})
            for i in range(samples)
        )
        card = {"name": "world", "kind": "pairs", "rendered": True, "licence": "CC0", "made": {"by": "test"}}
        write_shards(made, tmp_path / name, card, shard_size)
        return tmp_path / name

    return make
