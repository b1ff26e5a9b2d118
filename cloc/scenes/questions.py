"""Questions about a scene and their true answers: referring, grounding, counting, yes/no, captions.

A question that points at an object holds `PLACE`, which becomes coordinates or a `<region>` placeholder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cloc.scenes.captions import add_article
from cloc.scenes.render import Scene
from cloc.scenes.world import WorldSpec, compute_odds, list_categories
from cloc.structures import Box

PLACE = "<place>"
KINDS = ("referring", "grounding", "counting", "yesno", "caption")

_REFERRING = (f"What is in the box {PLACE}?", f"Name the object in {PLACE}.", f"What can be seen at {PLACE}?")
_GROUNDING = ("Where is {}?", "Find {}.", "Give the box of {}.")
_COUNTING = ("How often can you see {}?", "How many times is {} in the picture?")
_YESNO = ("Is there {} in the picture?", "Can you see {}?")
_CAPTION = ("Describe the picture.", "What does the picture show?", "Write a short caption.")
_ABSENT = 0.25
_SEVERAL = 0.5


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        kind: one of `KINDS`.
        question: with `PLACE` where it points at `asked_box`.
        answer: a name, a number, yes or no, a caption; for grounding `PLACE`, which stands for `answer_box`.
        asked_box, answer_box: xyxy pixels, or None.
        category_id: what the question is about, None for captions.
    """

    kind: str
    question: str
    answer: str
    asked_box: Box | None = None
    answer_box: Box | None = None
    category_id: int | None = None


def _draw_one(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


def ask_name(scene: Scene, number: int, rng: np.random.Generator) -> Turn:
    """What is in the box of an object."""
    thing = scene.objects[number]
    return Turn("referring", _draw_one(_REFERRING, rng), thing.name, thing.box_xyxy, None, thing.category_id)


def ask_box(scene: Scene, expression_index: int, rng: np.random.Generator) -> Turn:
    """Where the object is that one of the scene's expressions singles out."""
    expression = scene.expressions[expression_index]
    thing = scene.objects[expression.object_index]
    text = expression.text if expression.kind == "relational" else f"the {expression.text}"
    return Turn("grounding", _draw_one(_GROUNDING, rng).format(text), PLACE, None, thing.box_xyxy, thing.category_id)


def ask_presence(spec: WorldSpec, scene: Scene, yes: bool, rng: np.random.Generator) -> Turn:
    """Whether a category is in the picture; an absent one is drawn with the odds of the world, as present ones are."""
    number = _draw_present(scene, rng) if yes else _draw_absent(spec, scene, rng)
    question = _draw_one(_YESNO, rng).format(add_article(list_categories(spec)[number - 1].name))
    return Turn("yesno", question, "yes" if yes else "no", category_id=number)


def ask_count(spec: WorldSpec, scene: Scene, rng: np.random.Generator) -> Turn:
    """How many objects of a category there are, none at all in a quarter of the questions."""
    counts = Counter(thing.category_id for thing in scene.objects)
    several = [number for number, count in counts.items() if count > 1]
    if rng.random() < _ABSENT:
        number = _draw_absent(spec, scene, rng)
    elif several and rng.random() < _SEVERAL:
        number = several[int(rng.integers(len(several)))]
    else:
        number = _draw_present(scene, rng)
    question = _draw_one(_COUNTING, rng).format(add_article(list_categories(spec)[number - 1].name))
    return Turn("counting", question, str(counts[number]), category_id=number)


def ask_caption(scene: Scene, rng: np.random.Generator) -> Turn:
    """The scene's caption."""
    return Turn("caption", _draw_one(_CAPTION, rng), scene.caption)


def _draw_present(scene: Scene, rng: np.random.Generator) -> int:
    kinds = list(dict.fromkeys(thing.category_id for thing in scene.objects))
    return kinds[int(rng.integers(len(kinds)))]


def _draw_absent(spec: WorldSpec, scene: Scene, rng: np.random.Generator) -> int:
    present, odds = {thing.category_id for thing in scene.objects}, compute_odds(spec, scene.split)
    weights = np.diff(odds, prepend=0.0)
    weights[[number - 1 for number in present]] = 0.0
    if weights.sum() <= 0:
        raise ValueError("conversations: every category is in one scene; raise num_categories or lower max_objects")
    return int(rng.choice(len(weights), p=weights / weights.sum())) + 1


def make_training_turns(spec: WorldSpec, scene: Scene, yes: bool, rng: np.random.Generator) -> list[Turn]:
    """Questions of each kind, in an order drawn by chance; nothing points at an object of a caption-only category.

    An object is either named or looked for, never both: the answer to the one would stand in the question of the other.

    Args:
        spec: the world.
        scene: the scene.
        yes: the answer of the yes/no question.
        rng: for the choices.
    """
    turns = [ask_presence(spec, scene, yes, rng), ask_count(spec, scene, rng), ask_caption(scene, rng)]
    turns += _ask_about_objects(scene, spec.questions, rng)
    return [turns[i] for i in rng.permutation(len(turns)).tolist()]


def _ask_about_objects(scene: Scene, most: int, rng: np.random.Generator) -> list[Turn]:
    """At most `most` referring and as many grounding questions, each about another object with boxes in training."""
    boxed = [number for number, thing in enumerate(scene.objects) if not thing.category.caption_only]
    drawn = [boxed[i] for i in rng.permutation(len(boxed)).tolist()]
    expressions_of_object = dict[int, list[int]]()
    for i, expression in enumerate(scene.expressions):
        expressions_of_object.setdefault(expression.object_index, []).append(i)
    half = (len(drawn) + int(rng.integers(2))) // 2  # of an odd number either kind gets the last one
    sought = [number for number in drawn if number in expressions_of_object][: min(most, half)]
    named = [number for number in drawn if number not in sought][:most]
    choices = [expressions_of_object[number] for number in sought]
    expressions = [choice[int(rng.integers(len(choice)))] for choice in choices]
    return [ask_name(scene, number, rng) for number in named] + [ask_box(scene, i, rng) for i in expressions]


def make_evaluation_turns(spec: WorldSpec, scene: Scene, rng: np.random.Generator) -> Iterator[Turn]:
    """Questions of held-out scenes: each object referred to, each object with an expression looked for once, a yes and
    a no, a count, a caption.
    """
    for number in range(len(scene.objects)):
        yield ask_name(scene, number, rng)
    first = {e.object_index: i for i, e in reversed(list(enumerate(scene.expressions)))}
    for number in sorted(first):
        yield ask_box(scene, first[number], rng)
    for yes in (True, False):
        yield ask_presence(spec, scene, yes, rng)
    yield ask_count(spec, scene, rng)
    yield ask_caption(scene, rng)
