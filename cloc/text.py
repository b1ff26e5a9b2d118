"""Ground floor: the tokenizer. CLIP's byte-pair vocabulary, which ships inside open_clip, for transformers."""

from __future__ import annotations

import copy
import gzip
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase

MAX_TOKENS = 77
_SPACES = re.compile(r"\s+")
_APART = re.compile(r"[_/\s]+")


def canonical(text: str) -> str:
    """Lower-case, blanks collapsed: the form in which two phrases count as the same string."""
    return _SPACES.sub(" ", text).strip().lower()


def concept_name(text: str) -> str:
    """The form in which a category is read: lower-case, `_` and `/` as blanks; remarks in brackets stay, since LVIS
    tells a bow (weapon) from a bow (decorative ribbons) by nothing else.
    """
    return _APART.sub(" ", text).strip().lower()


def concept_sentence(name: str, definition: str = "") -> str:
    """What the text tower reads for a category, in training and testing alike: its name, and its definition if any."""
    definition = canonical(definition)
    return f"{concept_name(name)}, {definition}" if definition else concept_name(name)


def text_id(text: str) -> int:
    """A 63-bit number that is equal for equal canonical strings on every rank."""
    return int.from_bytes(hashlib.blake2b(canonical(text).encode(), digest_size=8).digest(), "big") >> 1


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
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """`clip` for the built-in vocabulary, else a transformers folder or hub name; the caller's own copy.

    Raises:
        ValueError: there is no tokenizer of that name.
    """
    if name == "clip":
        own = copy.deepcopy(clip_tokenizer())
        own.backend_tokenizer.no_truncation()  # whatever an earlier call left in it
        own.backend_tokenizer.no_padding()
        return own
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"tokenizer {name}: expected clip, a transformers folder or a hub name ({reason})") from error
