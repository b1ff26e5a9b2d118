"""Benchmark files around LLaVA: questions, reference answers and contexts as JSON lines, read without loss.

Layouts: LLaVA-Bench and Ferret-Bench questions and answers `{"question_id", "image", "text", "category"}`; LLaVA's
captions with boxes `{"id", "image", "captions", "instances": [{"category", "bbox"}]}`, boxes xyxy in [0, 1] of the
image. Every field that is not named here is kept in `extras`; `to_json` gives the line back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloc.formats.rows import read_json_rows
from cloc.structures import Box, DataError
from mllm_bridge.conversations.reading import IMAGE, Conversation, Turn


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a question, answer or context file.

    Attributes:
        question_id: number of the question within its file.
        image: name of the image's file.
        text: the question, answer or context.
        category: task that it belongs to.
        extras: other fields, as they came.
    """

    question_id: int | str
    image: str
    text: str
    category: str
    extras: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The line as it was."""
        head = {"question_id": self.question_id, "image": self.image, "text": self.text, "category": self.category}
        return {**head, **self.extras}


@dataclass(frozen=True, slots=True)
class CaptionedBoxes:
    """Captions and named boxes of one image.

    Attributes:
        key, image: id and file name.
        captions: of the whole image.
        boxes_xyxy: (name, box) with the box xyxy in [0, 1] of the image.
        extras: other fields, as they came.
    """

    key: str
    image: str
    captions: tuple[str, ...]
    boxes_xyxy: tuple[tuple[str, Box], ...]
    extras: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The line as it was."""
        instances = [{"category": name, "bbox": list(box)} for name, box in self.boxes_xyxy]
        head = {"id": self.key, "image": self.image, "captions": list(self.captions), "instances": instances}
        return {**head, **self.extras}


def read_questions(file: str | Path) -> tuple[list[Question], Counter[str]]:
    """Questions, answers or contexts, and the lines left out, by reason.

    Raises:
        ValueError: there is no such file.
    """
    found, skipped = list[Question](), Counter[str]()
    for row in read_json_rows(Path(file), skipped):
        if (
            not all(isinstance(row.get(name), str) for name in ("image", "text", "category"))
            or "question_id" not in row
        ):
            skipped["bad_question"] += 1
            continue
        known = ("question_id", "image", "text", "category")
        extras = {key: value for key, value in row.items() if key not in known}
        found.append(Question(row["question_id"], row["image"], row["text"], row["category"], extras))
    return found, skipped


def read_captioned_boxes(file: str | Path) -> tuple[list[CaptionedBoxes], Counter[str]]:
    """Captions with boxes, and the lines left out, by reason.

    Raises:
        ValueError: there is no such file.
    """
    found, skipped = list[CaptionedBoxes](), Counter[str]()
    for row in read_json_rows(Path(file), skipped):
        try:
            boxes = tuple((one["category"], tuple(one["bbox"])) for one in row["instances"])
            known = ("id", "image", "captions", "instances")
            extras = {key: value for key, value in row.items() if key not in known}
            found.append(CaptionedBoxes(row["id"], row["image"], tuple(row["captions"]), boxes, extras))
        except (KeyError, TypeError):
            skipped["bad_captioned_boxes"] += 1
    return found, skipped


def answered(
    questions: list[Question], answers: list[Question], images: Path
) -> tuple[list[Conversation], Counter[str]]:
    """Questions with their reference answers as conversations, joined by `question_id` and image.

    Args:
        questions: of one task.
        answers: of the same task.
        images: folder of the images.

    Returns:
        The conversations, and what could not be joined or used, by reason.
    """
    by_id = {(answer.question_id, answer.image): answer for answer in answers}
    found, skipped = list[Conversation](), Counter[str]()
    for question in questions:
        answer = by_id.pop((question.question_id, question.image), None)
        file = images / question.image
        if answer is None or not file.is_file():
            skipped["question_without_answer" if answer is None else "missing_image"] += 1
            continue
        turns = (Turn("user", f"{IMAGE}\n{question.text}"), Turn("assistant", answer.text))
        try:
            found.append(
                Conversation(str(question.question_id), (file,), turns, extras={"category": question.category})
            )
        except DataError as error:
            skipped[error.reason] += 1
    skipped.update({"answer_without_question": len(by_id)} if by_id else {})
    return found, skipped
