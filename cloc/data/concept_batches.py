"""Samples in, one `ConceptBatch` out (DetCLIPv2 3.1): images with boxes and concepts, each concept its own sentence.

detection  the categories that are there, and random others that are known to be absent up to `concepts`
grounding  the phrases, and random entries of the dictionary that the caption does not name, up to `concepts`
pairs      the caption and its noun phrases, no boxes

What is known to be absent, and what nobody looked for, is told by `cloc.data.known`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import ImageOps
from transformers import PreTrainedTokenizerBase

from cloc.data.collate import decode_sample, draw_caption
from cloc.data.concepts import ConceptDictionary
from cloc.data.known import Knowledge, Vocabulary, find_knowledge, make_relations
from cloc.data.loader import Source
from cloc.data.order import Order, draw
from cloc.images import DetectionPlacement, place_top_left, to_pixel_values
from cloc.phrases import LIMIT, make_chunker
from cloc.structures import BatchKnowledge, Box, ConceptBatch, ConceptKind, DataError, Sample
from cloc.text import canonical, concept_name, concept_sentence, text_id
from cloc.tokenizer import tokenise


@dataclass(frozen=True, slots=True)
class ConceptRecipe:
    """How the samples of one kind become a batch.

    Attributes:
        kind: of the data.
        sizes: (short side, long side) bounds in pixels, one drawn for each batch (multi-scale).
        square: the canvas is a square of the long side, whatever the images are (pairs: 320 x 320).
        divisor: the canvas' sides are multiples of it.
        flip: images are mirrored with probability one half.
        concepts: names a sample, negatives included (the paper: 150 for detection, 100 for grounding).
        definitions: sentences are `name, definition` instead of the bare name.
        text_context: tokens of a concept.
        caption_context: tokens of the whole caption for the image-text loss; None: that loss is not asked for.
        max_boxes: boxes an image may bring; the rest is left out and counted.
        chunker, generic_words: who finds the noun phrases of pairs, and which words are no part of them, see
            `cloc.phrases.make_chunker`.
        phrases: the first so many of a caption are kept.
    """

    kind: ConceptKind
    sizes: tuple[tuple[int, int], ...]
    square: bool
    divisor: int
    flip: bool
    concepts: int
    definitions: bool
    text_context: int
    caption_context: int | None = None
    max_boxes: int = 500
    chunker: str = "rules"
    generic_words: str = "ours"
    phrases: int = LIMIT


@dataclass(frozen=True, slots=True)
class PreparedConcepts:
    """One sample before it is stacked.

    Attributes:
        key: the sample's key.
        pixel_values: (3, h, w) float32, resized and normalised.
        placement: where the image lies on its canvas.
        boxes_xyxy: (m, 4) float64 pixels of the original image (mirrored with it), all different.
        labels: (box row, sentence) pairs.
        negatives: sentences of names that are not there.
        pairs: kind `pairs`: the caption and its noun phrases.
        caption: whole caption, empty where there is none.
        dropped: what was left out, by reason.
        concept_keys: of each sentence of labels and negatives, the keys that it answers to.
        knowledge: what is known of concepts that are not labelled.
    """

    key: str
    pixel_values: np.ndarray
    placement: DetectionPlacement
    boxes_xyxy: np.ndarray
    labels: tuple[tuple[int, str], ...]
    negatives: tuple[str, ...]
    pairs: tuple[str, ...]
    caption: str
    dropped: Counter[str]
    concept_keys: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    knowledge: Knowledge = field(default_factory=Knowledge)


def prepare_concepts(
    sample: Sample,
    recipe: ConceptRecipe,
    size: tuple[int, int],
    dictionary: ConceptDictionary,
    categories: Sequence[str] | Vocabulary,
    seed: int,
    epoch: int,
) -> PreparedConcepts:
    """Resize one sample and choose its concepts; every draw depends on (seed, epoch, sample key) alone.

    Args:
        sample: as read from a shard.
        recipe: how its kind is treated.
        size: (short side, long side) bounds in pixels for this batch.
        dictionary: definitions, and where grounding takes its negatives from.
        categories: of the set, where detection takes its negatives from. With names alone, what is a kind of what is
            told by the dictionary, and nothing is known to be absent in a sample of a federated set.
        seed: the run's seed.
        epoch: how often the data has been seen.

    Raises:
        DataError: the image cannot be decoded or has another size than the sample says.
    """
    image = decode_sample(sample)
    random = draw(seed, "concepts", recipe.kind, epoch, sample.key)
    caption = draw_caption(sample, random)
    mirrored = recipe.flip and bool(random.integers(2))
    dropped = Counter(sample.dropped)
    boxes, names, beyond = _split_boxes_and_names(sample, recipe, dropped) if recipe.kind != "pairs" else ([], [], [])
    if mirrored:
        image = ImageOps.mirror(image)
        boxes = [(sample.width - x1, y0, sample.width - x0, y1) for x0, y0, x1, y1 in boxes]
    present = list(dict.fromkeys(name for _, name in names))
    relations = make_relations(dictionary)
    if not isinstance(categories, Vocabulary):
        categories = Vocabulary(tuple(categories), relations=relations)
    knowledge, negatives = Knowledge(), list[str]()
    if recipe.kind != "pairs":
        phrases = recipe.kind == "grounding" or not categories.names
        knowledge = find_knowledge(sample, present, categories, relations, phrases, beyond)
        negatives = _draw_names(knowledge.negatives, recipe.concepts - len(present), random)
    read = {name: dictionary.sentence(name) if recipe.definitions else concept_name(name) for name in present}
    asked = [
        concept_sentence(name, text) for name, text in _add_definitions(negatives, present, recipe, dictionary, random)
    ]
    keys = {read[name]: relations.concept_keys(name) for name in present}
    keys |= {text: relations.concept_keys(name) for name, text in zip(negatives, asked, strict=True)}
    placement = DetectionPlacement(sample.width, sample.height, *size)
    resized = place_top_left(image, placement.scaled, placement.scaled)
    return PreparedConcepts(
        sample.key,
        to_pixel_values(resized),
        placement,
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        tuple((row, read[name]) for row, name in names),
        tuple(asked),
        _find_pair_texts(caption, recipe, dropped) if recipe.kind == "pairs" else (),
        caption,
        dropped,
        keys,
        knowledge.mirrored(sample.width) if mirrored else knowledge,
    )


def _split_boxes_and_names(
    sample: Sample, recipe: ConceptRecipe, dropped: Counter[str]
) -> tuple[list[Box], list[tuple[int, str]], list[tuple[str, Box]]]:
    """The different boxes of a sample, (box row, name) pairs, and (name, box) of those beyond the recipe's limit."""
    rows: dict[Box, int] = {}
    names, beyond = dict[tuple[int, str], None](), list[tuple[str, Box]]()
    for region in sample.regions:
        if region.extras.get("crowd"):
            dropped["crowd"] += 1
            continue
        if region.box not in rows and len(rows) == recipe.max_boxes:
            dropped["too_many_boxes"] += 1
            beyond.append((concept_name(region.phrase), region.box))
            continue
        row = rows.setdefault(region.box, len(rows))
        names[(row, concept_name(region.phrase))] = None
    return list(rows), list(names), beyond


def _draw_names(names: Sequence[str], wanted: int, random: np.random.Generator) -> list[str]:
    chosen = random.permutation(len(names))[: max(wanted, 0)]
    return [names[i] for i in sorted(chosen)]


def _add_definitions(
    negatives: Sequence[str],
    present: Sequence[str],
    recipe: ConceptRecipe,
    dictionary: ConceptDictionary,
    random: np.random.Generator,
) -> list[tuple[str, str]]:
    """(name, definition or nothing) of each negative. Of phrases only a part meets a definition, of the dictionary's
    names nearly all have one; shown so, `has a definition` would mean `is absent`. So as large a part of the negatives
    reads its definition as of the image's own phrases does.
    """
    if not recipe.definitions:
        return [(name, "") for name in negatives]
    found = [(name, dictionary.definition(name)) for name in negatives]
    if recipe.kind != "grounding" or not negatives:
        return found
    share = np.mean([bool(dictionary.definition(name)) for name in present]) if present else 1.0
    have = [row for row, (_, text) in enumerate(found) if text]
    # A whole number of them, and the rest of a fraction by chance, so that the shares are equal on average.
    kept = min(int(share * len(found) + random.random()), len(have))
    bare = {have[i] for i in random.permutation(len(have))[kept:]}
    return [(name, "" if row in bare else text) for row, (name, text) in enumerate(found)]


def _find_pair_texts(caption: str, recipe: ConceptRecipe, dropped: Counter[str]) -> tuple[str, ...]:
    text = canonical(caption)
    if not text:
        dropped["no_caption"] += 1
        return ()
    phrases = make_chunker(recipe.chunker, recipe.generic_words)(text, recipe.phrases)
    if not phrases:
        dropped["caption_without_noun_phrase"] += 1
    return tuple(dict.fromkeys([text, *phrases]))


def collate_concepts(
    prepared: Sequence[PreparedConcepts],
    tokenizer: PreTrainedTokenizerBase,
    recipe: ConceptRecipe,
    size: tuple[int, int],
    skipped: Counter[str] | None = None,
) -> ConceptBatch:
    """Stack prepared samples on one canvas; equal sentences become one row. An empty list gives an empty batch."""
    width, height = measure_canvas([item.placement.scaled for item in prepared], recipe, size)
    num, most = len(prepared), max((len(item.boxes_xyxy) for item in prepared), default=0)
    pixels, extent = torch.zeros(num, 3, height, width), torch.zeros(num, 2)
    boxes, mask = torch.zeros(num, max(most, 1), 4), torch.zeros(num, max(most, 1), dtype=torch.bool)
    sentences = dict[str, int]()
    label_box, label_concept, pair_image, pair_concept = [], [], [], []
    counts, first_box = Counter(skipped or {}), 0
    for row, item in enumerate(prepared):
        w, h = item.placement.scaled
        pixels[row, :, :h, :w] = torch.from_numpy(item.pixel_values)
        extent[row] = torch.tensor([w / width, h / height])
        boxes[row, : len(item.boxes_xyxy)] = torch.from_numpy(
            item.placement.to_canvas(item.boxes_xyxy, (width, height)).astype(np.float32)
        )
        mask[row, : len(item.boxes_xyxy)] = True
        for box, sentence in item.labels:
            label_box.append(first_box + box)
            label_concept.append(sentences.setdefault(sentence, len(sentences)))
        for sentence in item.negatives:
            sentences.setdefault(sentence, len(sentences))
        for sentence in item.pairs:
            pair_image.append(row)
            pair_concept.append(sentences.setdefault(sentence, len(sentences)))
        first_box += len(item.boxes_xyxy)
        counts.update(item.dropped)
    concept_ids, concept_attention = tokenise(tokenizer, list(sentences), recipe.text_context)
    captioned = [row for row, item in enumerate(prepared) if recipe.caption_context and canonical(item.caption)]
    captions = [prepared[row].caption for row in captioned]
    caption_ids, caption_attention = tokenise(tokenizer, captions, recipe.caption_context)
    return ConceptBatch(
        kind=recipe.kind,
        pixel_values=pixels,
        extent=extent,
        boxes=boxes,
        boxes_mask=mask,
        label_box=torch.tensor(label_box, dtype=torch.int64),
        label_concept=torch.tensor(label_concept, dtype=torch.int64),
        concept_ids=concept_ids,
        concept_attention=concept_attention,
        concept_text_id=torch.tensor([text_id(sentence) for sentence in sentences], dtype=torch.int64),
        pair_image=torch.tensor(pair_image, dtype=torch.int64),
        pair_concept=torch.tensor(pair_concept, dtype=torch.int64),
        caption_ids=caption_ids,
        caption_attention=caption_attention,
        caption_image=torch.tensor(captioned, dtype=torch.int64),
        knowledge=None if recipe.kind == "pairs" else _stack_knowledge(prepared, sentences, (width, height)),
        keys=tuple(item.key for item in prepared),
        skipped=counts,
    )


def _stack_knowledge(
    prepared: Sequence[PreparedConcepts], sentences: Mapping[str, int], canvas: tuple[int, int]
) -> BatchKnowledge:
    keys = {key: own for item in prepared for key, own in item.concept_keys.items()}
    rules: dict[str, list[tuple[int, int]]] = {"known": [], "unknown": [], "partly": []}
    boxes = list[tuple[float, ...]]()
    for row, item in enumerate(prepared):
        for name in ("known", "unknown"):
            rules[name] += [(row, key) for key in sorted(getattr(item.knowledge, name))]
        for key, box in item.knowledge.partly:
            rules["partly"].append((row, key))
            whole = (-np.inf, -np.inf, np.inf, np.inf)
            boxes.append(whole if box is None else tuple(item.placement.to_canvas(np.array([box]), canvas)[0]))
    pairs = [(text_id(sentence), key) for sentence in sentences for key in keys.get(sentence, (text_id(sentence),))]
    return BatchKnowledge(
        closed=torch.tensor([item.knowledge.closed for item in prepared], dtype=torch.bool),
        concept_keys=torch.tensor(pairs, dtype=torch.int64).view(-1, 2),
        **{name: torch.tensor(found, dtype=torch.int64).view(-1, 2) for name, found in rules.items()},
        partly_boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
    )


def measure_canvas(scaled: Sequence[tuple[int, int]], recipe: ConceptRecipe, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels of the canvas that holds all images, multiples of the recipe's divisor."""
    widest = max((w for w, _ in scaled), default=recipe.divisor)
    highest = max((h for _, h in scaled), default=recipe.divisor)
    if recipe.square:
        widest = highest = size[1]
    return -(-widest // recipe.divisor) * recipe.divisor, -(-highest // recipe.divisor) * recipe.divisor


class ConceptBatches:
    """The batches of one kind for one rank: batch n takes positions [n b, (n + 1) b) of each source's order.

    Args:
        sources: all of one kind.
        recipe: how they become a batch.
        dictionary: definitions and negatives of grounding.
        tokenizer: for the sentences.
        seed, rank, world: as in `StepBatches`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        recipe: ConceptRecipe,
        dictionary: ConceptDictionary,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.sources, self.recipe, self.dictionary, self.tokenizer = tuple(sources), recipe, dictionary, tokenizer
        self.seed, self.rank, self.world = seed, rank, world
        self.orders = [Order(source.shards.counts, seed) for source in sources]
        listed = [Vocabulary.of_card(source.shards.card) for source in sources]
        alone = len({vocabulary.names for vocabulary in listed}) == 1
        self.categories = [vocabulary if alone else replace(vocabulary, alone=False) for vocabulary in listed]

    def batch(self, number: int) -> ConceptBatch:
        """Batch `number` (from 0) of this kind; samples that cannot be used are left out and counted."""
        sizes = self.recipe.sizes
        size = sizes[int(draw(self.seed, "size", self.recipe.kind, number).integers(len(sizes)))]
        prepared, skipped = list[PreparedConcepts](), Counter[str]()
        for source, order, categories in zip(self.sources, self.orders, self.categories, strict=True):
            first = number * source.batch_size
            for position in range(first + self.rank, first + source.batch_size, self.world):
                epoch, shard, index = order.locate(position)
                try:
                    sample = source.shards.read_sample(shard, index)
                    prepared.append(
                        prepare_concepts(sample, self.recipe, size, self.dictionary, categories, self.seed, epoch)
                    )
                except DataError as error:
                    skipped[error.reason] += 1
        return collate_concepts(prepared, self.tokenizer, self.recipe, size, skipped)
