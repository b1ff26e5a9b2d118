"""A tiny host with random weights, made on the spot: what the bare swap and the tests put a tower into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from cloc.disk import atomic_dir
from mllm_bridge.hosts import DEFAULT
from mllm_bridge.hosts.family import HostFamily
from mllm_bridge.hosts.tiny_parts import TinyParts

START, END = "<|startoftext|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
MAX_TOKENS = 2048
WORDS = """
a and are above at below box circle colour cross describe how image in is it left many no of on region right ring say
square star the there this triangle two what where which yes red green blue yellow orange purple white black
user assistant
"""
"""What is one token each, or a few; every other word is spelt byte by byte."""
WORD_END = "</w>"
PIECES = Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
"""What is cut apart before it is spelt: words, single digits, signs."""


def _spelling() -> BPE:
    """Every byte within a word and at its end, and the words of `WORDS`, put together from the left."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries, merges = [*letters, *(letter + WORD_END for letter in letters)], []
    for word in WORDS.split():
        spelt = word[0]
        for letter in [*word[1:-1], word[-1] + WORD_END][: len(word) - 1]:
            merges.append((spelt, letter))
            spelt += letter
            entries.append(spelt)
    vocab = {entry: index for index, entry in enumerate(dict.fromkeys([*entries, START, END]))}
    return BPE(vocab, list(dict.fromkeys(merges)), end_of_word_suffix=WORD_END, unk_token=END)


def make_tiny_tokenizer(
    image_token: str = DEFAULT.image_token, special_tokens: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """A few hundred entries, cut as CLIP's are, for a causal language model: a start token in front, none behind.

    It is small because every swap reads and writes its host's tokenizer.

    Args:
        image_token: what stands for an image, added where there are no `special_tokens`.
        special_tokens: what a family's tokenizer has to name, by name.
    """
    backend = Tokenizer(_spelling())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECES, "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, " ")])
    start = backend.token_to_id(START)
    backend.post_processor = TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, start)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        extra_special_tokens=special_tokens or [image_token],
        model_max_length=MAX_TOKENS,
    )


def make_tiny(
    out: Path,
    *,
    seed: int = 0,
    layers: int = 3,
    width: int = 32,
    family: HostFamily = DEFAULT,
    build: Callable[[TinyParts], tuple[PreTrainedModel, ProcessorMixin]] = DEFAULT.build_tiny,
    special_tokens: Mapping[str, str] | None = None,
) -> Path:
    """Write a tiny host: a CLIP tower of 32 px that crops as the stock models do, and a Llama of two layers.

    Args:
        out: folder to make; if it already holds a host it is left as it is.
        seed: of the random weights; the same seed gives the same weights, and no global state is touched.
        layers: depth of the tower.
        width: of tower and language model.
        family: of the host.
        build: joins the parts to a host of that family.
        special_tokens: what the family's tokenizer has to name, by name.

    Returns:
        `out`.

    Raises:
        ValueError: `out` holds something else.
    """
    if (out / "config.json").is_file():
        return out
    tokenizer = make_tiny_tokenizer(family.image_token, special_tokens)
    tower = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=width,
    )
    text = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": width // 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    stock = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = build(
            TinyParts(tower, text, tokenizer, stock, CHAT_TEMPLATE.replace("IMAGE", family.image_token))
        )
    with atomic_dir(out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return out
