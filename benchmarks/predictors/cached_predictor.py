"""A predictor whose answers are kept on disk while a run lasts, and worked out by several comm.

Tasks ask in a fixed order, so an answer is known by its number. After a kill the same questions are asked again, and
those that were answered are read from the cache, until the first that was not. Each call is cut into chunks of the
batch size, always in the same way: chunk c is the work of process c modulo their number, so that any number of
processes answers with the same batches and hence the same bits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.predictors.detector import Found
from cloc import comm
from cloc.disk import atomic_write

ASKED = ("encode_texts", "encode_images", "encode_regions", "ground", "detect", "answer", "answer_regions")
WHOLE = {"detect": 1}
"""Arguments after the first so many go to every chunk as they are (the names of `detect`)."""
TEXTS_A_CHUNK = 4096
TEXTS = {"encode_texts": 0, "ground": 1, "detect": 1, "answer": 1, "answer_regions": 2}
"""Which argument of a question holds its texts: a list of them, or for `ground` one list an image."""
ON_IMAGES = tuple(name for name in ASKED if name != "encode_texts")
FIELDS = ("boxes_xyxy", "scores", "labels")


class CachedPredictor:
    """Stands before a predictor; anything but a question is passed on to it."""

    def __init__(self, inner: Any, folder: Path | None, batch_size: int) -> None:
        """Keep answers in `folder`; None keeps none."""
        self.inner, self._folder, self._batch_size, self._number = inner, folder, batch_size, 0
        self._images, self._seconds, self._texts = 0, 0.0, set[str]()
        if folder is not None and comm.is_main():
            folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self._cached(name, value) if name in ASKED else value

    @property
    def images_per_second(self) -> float | None:
        """Images that were asked about over the time that the answers took, all processes together; an image counts in
        each question about it, and answers from the cache do not count. None where no image was asked about.
        """
        return self._images / self._seconds if self._images and self._seconds > 0 else None

    @property
    def texts_sha256(self) -> str | None:
        """SHA-256 of the different texts that were asked, answers from the cache included, in sorted order and each
        ended by a zero byte; it does not depend on batches. None where none was asked.
        """
        if not self._texts:
            return None
        return hashlib.sha256("".join(f"{text}\0" for text in sorted(self._texts)).encode()).hexdigest()

    def _cached(self, method: str, ask: Callable) -> Callable:
        def ask_once(*lists: Sequence) -> Any:
            number, self._number = self._number, self._number + 1
            for one in lists[TEXTS[method]] if method in TEXTS else ():
                self._texts.update([one] if isinstance(one, str) else one)
            file = None if self._folder is None else self._folder / f"{number:06d}-{method}.npz"
            known = comm.from_main(read_record(file, method) if file is not None and comm.is_main() else None)
            if known is not None:
                return known
            start = time.perf_counter()
            answer = self._answer(method, ask, lists)
            if method in ON_IMAGES:
                self._images, self._seconds = self._images + len(lists[0]), self._seconds + time.perf_counter() - start
            if file is not None and comm.is_main():
                write_record(file, answer)
            return answer

        return ask_once

    def _answer(self, method: str, ask: Callable, lists: tuple[Sequence, ...]) -> Any:
        size = TEXTS_A_CHUNK if method == "encode_texts" else self._batch_size
        cut = WHOLE.get(method, len(lists))
        starts = range(0, max(1, len(lists[0])), size)  # an empty question is asked as well: the answer has a width
        own = {
            place: ask(*(one[start : start + size] for one in lists[:cut]), *lists[cut:])
            for place, start in enumerate(starts)
            if place % comm.world_size() == comm.rank()
        }
        parts = {place: part for some in comm.gather_objects(own) for place, part in some.items()}
        return join_chunks([parts[place] for place in range(len(starts))])


def join_chunks(parts: Sequence[Any]) -> Any:
    """Answers of chunks one after the other: arrays by rows, lists by their items."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [item for part in parts for item in part]


def write_record(file: Path, answer: Any) -> None:
    """One answer as plain arrays, whole or not at all.

    Args:
        file: ends in `.npz`.
        answer: an array, or a list of arrays, of texts, of lists of texts, or of `Found`.
    """
    if isinstance(answer, np.ndarray):
        arrays = {"array": answer}
    else:
        arrays = {"count": np.array(len(answer))}
        for place, item in enumerate(answer):
            if isinstance(item, Found):
                arrays |= {f"{place}/{field}": getattr(item, field) for field in FIELDS}
            else:
                arrays[f"{place}/item"] = np.asarray(item)
    with atomic_write(file) as part, part.open("wb") as raw:
        np.savez(raw, **arrays)  # type: ignore[arg-type]  # the names are no parameters of it


def read_record(file: Path, method: str) -> Any:
    """What `write_record` wrote; None where there is no such file. Nothing is unpickled."""
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        if "array" in arrays:
            return arrays["array"]
        count = int(arrays["count"])
        if method == "detect":
            return [Found(*(arrays[f"{place}/{field}"] for field in FIELDS)) for place in range(count)]
        items = [arrays[f"{place}/item"] for place in range(count)]
    if method == "answer_regions":
        return [[str(text) for text in item] for item in items]
    return [str(item) for item in items] if method == "answer" else items
