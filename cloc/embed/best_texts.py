"""Which of given texts lies nearest to each vector: what a region shows, in somebody's own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cloc.files import read_bytes
from cloc.models.modeling import ClocModel
from cloc.models.processing import ClocProcessor

AT_A_TIME = 256
LONGEST = 1 << 24
"""Bytes of a file of texts."""


def read_texts(given: str) -> list[str]:
    """Texts with commas between them, or one a line of a file.

    Raises:
        ValueError: there is none, one stands there twice, or the file is no UTF-8 text.
    """
    path = Path(given)
    if path.suffix and path.is_file():
        try:
            parts = read_bytes(path, "texts, one a line", LONGEST).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"--texts {path}: expected UTF-8, one text a line ({error})") from error
    else:
        parts = given.split(",")
    texts = [" ".join(part.split()) for part in parts]
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError(f'--texts {given}: expected texts, got none; write --texts "cat, dog" or name a .txt file')
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise ValueError(f"--texts {given}: {twice[0]!r} stands there more than once; give each text once")
    return texts


class BestTexts:
    """The texts nearest to a vector, by cosine.

    Args:
        model: in evaluation mode.
        processor: the export's own.
        texts: at least one.
        best: how many are named for each vector.

    Raises:
        ValueError: `best` is below 1.
    """

    def __init__(self, model: ClocModel, processor: ClocProcessor, texts: Sequence[str], best: int) -> None:
        if best < 1:
            raise ValueError(f"--best: expected at least 1, got {best}")
        self.texts, self.best = list(texts), min(best, len(texts))
        vectors = []
        with torch.no_grad():
            for first in range(0, len(self.texts), AT_A_TIME):
                tokens = processor(text=self.texts[first : first + AT_A_TIME]).to(model.device)
                vectors.append(model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).float().cpu())
        self.vectors = torch.cat(vectors)

    def of(self, vector: torch.Tensor) -> dict[str, Any]:
        """Columns for one (E,) vector of unit norm: `best_texts`, and their cosines as `best_scores`, best first."""
        found = (self.vectors @ vector).topk(self.best)
        return {
            "best_texts": [self.texts[place] for place in found.indices.tolist()],
            "best_scores": found.values.tolist(),
        }
