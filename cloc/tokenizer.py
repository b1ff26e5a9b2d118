"""Tokenizers: CLIP's byte-pair vocabulary, which ships inside open_clip, or any of transformers; texts to token ids."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import normalizers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cloc.model_folders import refusing_code

MAX_TOKENS = 77


def _open_clip_merges() -> list[tuple[str, str]]:
    import open_clip

    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    return [(left, right) for left, right in (line.split() for line in lines[1 : 49152 - 256 - 2 + 1])]


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in the order of CLIP's vocabulary."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = range(256, 256 + 256 - len(kept))
    return [chr(code) for code in (*kept, *moved)]


@lru_cache(maxsize=1)
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer (49,408 entries, lower-case, at most 77 tokens), made without a network."""
    merges = _open_clip_merges()
    alphabet = _byte_alphabet()
    entries = [*alphabet, *(letter + "</w>" for letter in alphabet), *(left + right for left, right in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]  # takes pairs


def load_tokenizer(name: str, lower_case: bool = False) -> PreTrainedTokenizerBase:
    """`clip` for the built-in vocabulary, else a transformers folder or hub name; the caller's own copy.

    Args:
        name: which; the built-in one is always lower-cased.
        lower_case: see `lower_cased`.

    Raises:
        ValueError: there is no tokenizer of that name.
    """
    if name == "clip":
        own = copy.deepcopy(clip_tokenizer())
        own.backend_tokenizer.no_truncation()  # whatever an earlier call left in it
        own.backend_tokenizer.no_padding()
        return own
    try:
        with refusing_code(name):
            loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"tokenizer {name}: expected clip, a transformers folder or a hub name ({reason})") from error
    return lower_cased(loaded) if lower_case else loaded


def lower_cased(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same tokenizer for texts in any case, lower-cased before all else (CLOC Table A: T5's, lower-cased).

    It stays so where it is saved and loaded again: as a plain tokenizer, since classes of one vocabulary, such as
    T5's, are made anew from that vocabulary and forget what was put before it.

    Raises:
        ValueError: it is none of the tokenizers library, so nothing can be put before it.
    """
    if tokenizer("A Cat")["input_ids"] == tokenizer("a cat")["input_ids"]:
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path}: a {type(tokenizer).__name__} cannot be lower-cased; save it with a "
            "tokenizer.json, or set model.text.lower_case=false"
        )
    before = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=tokenizer.model_max_length, **tokenizer.special_tokens_map
    )


def check_end(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """The text tower's answer is read at the end token, so every text has it last and once, a cut one too.

    Raises:
        ValueError: the tokenizer has no end token or leaves it out; all texts would have one and the same vector.
    """
    for text in ("a", "a cat " * (tokenizer.model_max_length + 1)):
        ids = tokenizer(text, truncation=True)["input_ids"]
        if tokenizer.eos_token_id is None or ids[-1:] != [tokenizer.eos_token_id] or ids.count(ids[-1]) > 1:
            raise ValueError(
                f"tokenizer {name}: expected one that ends every text with its end token, got "
                f"{tokenizer.convert_ids_to_tokens(ids[-4:])} at the end of a text and {tokenizer.eos_token!r} as the "
                "end token; use clip, or a tokenizer such as T5's"
            )


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    context: int | None = None,
    padding: bool | str = True,
    truncation: bool | str = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(K, T) ids and attention, padded to the longest and cut at `context` (None: its maximum); K may be 0.

    A cut text keeps its end token. Training and every use of an export cut here. `padding` and `truncation` are
    transformers' own.
    """
    if not texts:
        return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
    tokens = tokenizer(list(texts), padding=padding, truncation=truncation, max_length=context, return_tensors="pt")
    return tokens["input_ids"], tokens["attention_mask"]
