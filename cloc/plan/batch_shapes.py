"""What the batches of a recipe look like, kind by kind: read from its data, or assumed where there is none yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from cloc import factory
from cloc.config import Config
from cloc.data import alternation
from cloc.data.concept_batches import ConceptBatches
from cloc.data.loader import Source
from cloc.data_root import find_data_root
from cloc.factory import concepts, inputs
from cloc.scenes import WORLD_CARD
from cloc.structures import Batch, ConceptBatch, ConceptKind
from cloc.towers.tower import canvas_divisor, image_side


@dataclass(frozen=True, slots=True)
class Shapes:
    """A batch of image-text and region-text data.

    Attributes:
        images: B.
        caption_tokens: T of the captions, padded to the longest of the batch.
        prompts: M prompts an image; 0 without a Prompter.
        phrases: U different phrases.
        phrase_tokens: T of the phrases.
        kinds: what the prompts are; points and masks go another way than boxes alone.
    """

    images: int
    caption_tokens: int
    prompts: int
    phrases: int
    phrase_tokens: int
    kinds: tuple[str, ...] = ("box",)

    def resized(self, images: int) -> Shapes:
        """The same texts and prompts an image, for another number of images."""
        phrases = max(-(-self.phrases * images // self.images), 1)
        return replace(self, images=images, phrases=phrases)

    def describe(self) -> str:
        """For the plan."""
        text = f"captions of {self.caption_tokens} tokens"
        if self.prompts:
            text += f", {self.prompts} regions an image, {self.phrases / self.images:.2f} phrases of "
            text += str(self.phrase_tokens)
        return text + (f", asked with {', '.join(self.kinds)}" if self.kinds != ("box",) else "")


@dataclass(frozen=True, slots=True)
class ConceptShapes:
    """A batch of one kind of detection training.

    Attributes:
        kind: `detection`, `grounding` or `pairs`.
        images: B.
        width, height: of the canvas in pixels.
        concepts: U different ones.
        concept_tokens: T of the concepts.
        boxes: R boxes of all images; 0 for pairs.
        caption_tokens: T of whole captions; 0 where none are read.
        categories: how many different concepts there are at most, however many images; 0: no limit.
    """

    kind: ConceptKind
    images: int
    width: int
    height: int
    concepts: int
    concept_tokens: int
    boxes: int
    caption_tokens: int = 0
    categories: int = 0

    def resized(self, images: int) -> ConceptShapes:
        """For another number of images: concepts grow with them, up to the number of categories."""
        concepts = max(-(-self.concepts * images // self.images), 1)
        if self.categories:
            concepts = min(concepts, self.categories)
        return replace(self, images=images, concepts=concepts, boxes=-(-self.boxes * images // self.images))

    def describe(self) -> str:
        """For the plan."""
        text = f"canvas {self.width} x {self.height}, {self.concepts} concepts of {self.concept_tokens} tokens"
        text += f" for {self.images} images"
        if self.kind != "pairs":
            return f"{text}, {self.boxes / self.images:.1f} boxes an image"
        return text + (f", captions of {self.caption_tokens} tokens" if self.caption_tokens else "")


SAMPLES = 64
"""Samples that are read to see how long texts are."""
PHOTOS = 16
"""Samples of each kind of detection data, which are larger."""
ASSUMED_CAPTION, ASSUMED_PHRASE = 40, 8
"""Tokens where there is no data yet: VESL's captions have 36 to 45 (CLOC Table 1), phrases 2 to 8."""
ASSUMED_BOXES = {"detection": 15, "grounding": 8, "pairs": 0}
"""Boxes an image where there is no data yet: Objects365 has about 15."""
ASSUMED_CATEGORIES = {"detection": 365, "grounding": 0, "pairs": 0}
"""Different names at most: those of Objects365."""
ASSUMED_WORDS = 4
"""Texts of a pair: its caption and about three noun phrases."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step.

    Attributes:
        name: `detection`, `grounding`, `pairs` or `regions`; empty where all steps are alike.
        batch_size: samples a step of it takes, over all devices.
        share: of the steps, in [0, 1].
        shapes: of as many samples as were looked at.
        whence: where they are known from.
    """

    name: str
    batch_size: int
    share: float
    shapes: Shapes | ConceptShapes
    whence: str


def kinds_of(config: Config) -> list[Kind]:
    """Every kind of step that the recipe has."""
    words = {Path(entry.path).parts[:1] for entry in config.data}
    worlds = [word for word in (inputs.SCENES, inputs.DETECTION_SCENES) if (word,) in words]
    if not all(
        (find_data_root(must_exist=False) / word / WORLD_CARD).is_file() for word in worlds
    ):  # a plan renders nothing
        return _assumed(config, "assumed, the rendered scenes are not made yet")
    try:
        sources = factory.make_sources(config)
    except ValueError as error:
        return _assumed(config, f"assumed, since there is no data yet ({str(error).splitlines()[0]})")
    return _read_kinds(config, sources) if config.alternates else [_read_one(config, sources)]


def _read_one(config: Config, sources: Sequence[Source]) -> Kind:
    batches = factory.make_batches(config, _few(sources, SAMPLES), factory.make_tokenizer(config), 0)
    return _of_batch(config, "", config.batch_size, 1.0, batches.batch(0))


def _read_kinds(config: Config, sources: Sequence[Source]) -> list[Kind]:
    batches = factory.make_batches(config, _few(sources, PHOTOS), factory.make_tokenizer(config), 0)
    assert isinstance(batches, alternation.Alternation)
    found = []
    for (name, size, share), kind in zip(_shares(config, sources), batches.kinds, strict=True):
        categories = 0
        if isinstance(kind, ConceptBatches):  # memory is that of the largest canvas
            kind.recipe = replace(kind.recipe, sizes=(max(kind.recipe.sizes),))
            categories = len({name for vocabulary in kind.categories for name in vocabulary.names})
        read = _of_batch(config, name, size, share, kind.batch(0))
        shapes = read.shapes
        limited = replace(shapes, categories=categories) if isinstance(shapes, ConceptShapes) else shapes
        found.append(replace(read, shapes=limited))
    return found


def _few(sources: Sequence[Source], samples: int) -> list[Source]:
    return [Source(s.shards, min(s.batch_size, max(samples // len(sources), 1), s.shards.num_samples)) for s in sources]


def _shares(config: Config, sources: Sequence[Source] | None) -> list[tuple[str, int, float]]:
    """(kind, batch, share of the steps) in the order of the config; without data, kinds of no weight count alike."""
    each = alternation.compute_shares(concepts.kinds_odds(config, sources), config.steps, config.starts)
    return [(kind, sum(config.data[row].batch_size for row in rows), each[kind]) for kind, rows in config.kinds.items()]


def _of_batch(config: Config, name: str, size: int, share: float, batch: Batch | ConceptBatch) -> Kind:
    images = max(len(batch.pixel_values), 1)
    shapes: Shapes | ConceptShapes
    if isinstance(batch, ConceptBatch):
        height, width = batch.pixel_values.shape[2:]
        sizes = len(batch.concept_ids), batch.concept_ids.shape[1], int(batch.boxes_mask.sum())
        captions = batch.caption_ids.shape[1] if len(batch.caption_ids) else 0
        shapes = ConceptShapes(batch.kind, images, width, height, *sizes, captions)
    else:
        prompts = 0 if config.objective == "clip" else config.loss.regions_per_image
        phrases = -(-len(batch.phrase_ids) * SAMPLES // images)
        lengths = max(batch.caption_ids.shape[1], 2), max(batch.phrase_ids.shape[1], 2)
        shapes = Shapes(SAMPLES, lengths[0], prompts, phrases, lengths[1], _prompts(config))
    return Kind(name, size, share, shapes, f"from {images} samples of the data")


def _assumed(config: Config, whence: str) -> list[Kind]:
    context = config.model.text.context
    prompts = 0 if config.objective == "clip" else config.loss.regions_per_image
    lengths = min(ASSUMED_CAPTION, context), min(ASSUMED_PHRASE, context)
    regions = Shapes(SAMPLES, lengths[0], prompts, SAMPLES * prompts, lengths[1], _prompts(config))
    if not config.alternates:
        return [Kind("", config.batch_size, 1.0, regions, whence)]
    shares = _shares(config, None)
    return [
        Kind(name, size, share, regions if name == "regions" else _assumed_concepts(config, name), whence)
        for name, size, share in shares
    ]


def _assumed_concepts(config: Config, name: str) -> ConceptShapes:
    tower = factory.make_tower_config(config)
    divisor = canvas_divisor(tower, config.model.detector.strides)
    entry = next(entry for entry in config.data if entry.kind == name)
    recipe = concepts.make_recipe(config, entry, image_side(tower), divisor)
    # Landscape and portrait lie in one batch, so its canvas has the long side both ways.
    side = -(-max(recipe.sizes)[1] // divisor) * divisor
    each = ASSUMED_WORDS if name == "pairs" else recipe.concepts
    most = ASSUMED_CATEGORIES[name]
    total = min(each * PHOTOS, most) if most else each * PHOTOS
    captions = 0 if recipe.caption_context is None else min(ASSUMED_CAPTION, recipe.caption_context)
    boxes = ASSUMED_BOXES[name] * PHOTOS
    return ConceptShapes(
        cast("ConceptKind", name), PHOTOS, side, side, total, recipe.text_context, boxes, captions, most
    )


def _prompts(config: Config) -> tuple[str, ...]:
    return config.model.prompter.prompts if config.objective in ("cloc", "joint") else ("box",)
