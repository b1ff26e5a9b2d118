"""What an answer that does not look gets: the level that the trial's figures are read against."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from cloc.boxes import iou
from mllm_bridge.conversations.reading import Conversation


def name_in_picture(questions: Sequence[Conversation]) -> float:
    """Referring accuracy of naming, at random, one of the objects that the picture shows.

    Args:
        questions: referring, all of each picture: every object of it is asked about once.
    """
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        names[str(question.images[0])][question.turns[1].text.lower()] += 1
    right = [n * n / count.total() for count in names.values() for n in count.values()]
    return sum(right) / len(questions)


def box_of_another(questions: Sequence[Conversation]) -> float:
    """Grounding acc@0.5 of answering with the box of another question, drawn at random.

    Args:
        questions: grounding, with their box (xyxy pixels, pictures of one size).
    """
    boxes = np.array([question.extras["box"] for question in questions], dtype=float)
    hits = iou(boxes, boxes) >= 0.5
    others = len(boxes) * (len(boxes) - 1)
    return float((hits.sum() - len(boxes)) / others) if others else 0.0
