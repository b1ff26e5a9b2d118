"""The trial's host: a tiny LLaVA whose tokens are words, with an export's tower swapped in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import CLIPImageProcessor, CLIPVisionConfig, PreTrainedTokenizerFast

from cloc.disk import atomic_dir
from cloc.files import read_json
from mllm_bridge.conversations.reading import IMAGE, REGION
from mllm_bridge.hosts import DEFAULT
from mllm_bridge.hosts.tiny_parts import TinyParts
from mllm_bridge.swap.command import swap
from mllm_bridge.trial.plan import LanguagePlan

WORD = r"\w+|[^\w\s]"
START, END, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
ROLES = ("user", "assistant")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}{% for part in message['content'] %}"
    "{{ 'IMAGE ' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{{ 'assistant: ' if add_generation_prompt else '' }}"
)


def list_words(texts: Iterable[str]) -> list[str]:
    """Every word and sign that occurs, lower case, in order."""
    return sorted({word for text in texts for word in re.findall(WORD, text.lower())})


def list_texts(file: Path) -> list[str]:
    """Everything that is said in a file of conversations.

    Raises:
        ValueError: there is no such file.
    """
    if not file.is_file():
        raise ValueError(
            f"trial: there is no {file}; render the world with `python -m cloc.scenes --out WORLD --train 64 "
            "--conversations 16000 --questions 2 --coordinates bins --bins 32`"
        )
    return [turn["value"] for entry in read_json(file, "conversations") for turn in entry["conversations"]]


def make_word_tokenizer(words: Iterable[str], context: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word."""
    special = [PAD, START, END, UNKNOWN]
    named = [*special, *dict.fromkeys([*words, *ROLES, ":"])]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(named)}, unk_token=UNKNOWN))
    backend.normalizer = Lowercase()
    backend.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation("isolated")])
    backend.post_processor = TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, named.index(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, REGION],
        model_max_length=context,
    )


def make_host(out: Path, export: Path, language: LanguagePlan, words: list[str], bins: int, seed: int) -> Path:
    """A host with random weights but for its tower, which is the export's; verified by the swap.

    Args:
        out: folder to make; left alone if it is there.
        export: of this kit.
        language: shape of the language model.
        words: its vocabulary.
        bins: whole numbers 0 to bins - 1 are words too.
        seed: of language model and projector.

    Returns:
        `out`.
    """
    if (out / "config.json").is_file():
        return out
    tokenizer = make_word_tokenizer([*words, *map(str, range(bins))], language.context)
    stand_in = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = {
        "hidden_size": language.width,
        "intermediate_size": 3 * language.width,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "num_key_value_heads": language.heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": language.context,
        "initializer_range": language.width**-0.5,  # the usual 0.02 is for wide models: attention would start flat
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    stock = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    bare = out.with_name(f"{out.name}-bare")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = DEFAULT.build_tiny(
            TinyParts(stand_in, text, tokenizer, stock, TEMPLATE.replace("IMAGE", DEFAULT.image_token))
        )
    if not (bare / "config.json").is_file():
        with atomic_dir(bare) as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    swap(bare, export, out, device="cpu", seed=seed)
    return out
