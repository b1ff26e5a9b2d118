"""Config to parts for detection: kinds that alternate, their recipes, and the losses of a concept step."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cloc import comm
from cloc.config import Config, DataConfig
from cloc.data.alternation import Alternation, KindBatches, make_schedule
from cloc.data.concept_batches import ConceptBatches, ConceptRecipe
from cloc.data.concepts import RECIPE, ConceptDictionary, merge_cards
from cloc.data.known import Vocabulary
from cloc.data.loader import Source, StepBatches
from cloc.data.prompts import PromptSampler
from cloc.factory.fields import shared_fields
from cloc.losses.detection import DETECTION_TERMS, DetectionTerms, detection_objective
from cloc.losses.proposals import LEARNT_SCORES
from cloc.models.configuration import ClocConfig, ClocDetectorConfig, Objectness
from cloc.phrases import make_chunker
from cloc.structures import ConceptBatch, ConceptKind, DetectionOutputs, LossReport
from cloc.towers.tower import canvas_divisor, image_side
from cloc.train.engine import Losses
from cloc.train.stepper import Stepper

PAPER_CONCEPTS = {"detection": 150, "grounding": 100, "pairs": 1}
"""Names a sample with its negatives (DetCLIPv2 3.1); pairs have their own words only."""


def detector_config(config: Config) -> ClocDetectorConfig:
    """The detector's own config, from the run's numbers."""
    detector = config.model.detector
    own: dict[str, Any] = {"logit_scale_init_value": detector.logit_scale_init, "objectness": learnt_score(config)}
    return ClocDetectorConfig(**shared_fields(detector, ClocDetectorConfig), **own)


def learnt_score(config: Config) -> Objectness:
    """The class-agnostic score that the detector has: the one that proposals are ranked by, if it must be learnt.

    Raises:
        ValueError: nothing would train it.
    """
    loss = config.loss.detection
    if loss.proposal_score not in LEARNT_SCORES:
        return "none"
    boxed = any(entry.kind == "detection" for entry in config.data)
    if not (boxed and loss.objectness) and not _comes_with(config.model.source, loss.proposal_score):
        raise ValueError(
            f"loss.detection.proposal_score {loss.proposal_score}: a score that is learnt from data of kind detection "
            "with loss.detection.objectness above 0, and this run has none; add such data, start from an export that "
            "has the score (model.source), or use proposal_score=similarity_batch"
        )
    return cast("Objectness", loss.proposal_score)


def _comes_with(source: str | None, score: str) -> bool:
    """Whether the starting weights have learnt the score; what is no folder is refused where it is loaded."""
    if source is None or not (Path(source) / "config.json").is_file():
        return False
    theirs = ClocConfig.from_pretrained(source, trust_remote_code=False).detector_config
    return theirs is not None and theirs.objectness == score


def make_recipe(config: Config, entry: DataConfig, tower_size: int, divisor: int) -> ConceptRecipe:
    """How the samples of one source become concept batches.

    Args:
        config: of the run.
        entry: the source; of several sources of a kind, the first.
        tower_size: pixels, where the entry names no size of its own.
        divisor: what the canvas' sides are multiples of, pixels.
    """
    size = entry.image_size if entry.image_size is not None else tower_size
    return ConceptRecipe(
        kind=cast("ConceptKind", entry.kind),
        sizes=((size, size),) if isinstance(size, int) else size,
        square=isinstance(size, int),
        divisor=divisor,
        flip=entry.flip and entry.kind != "pairs",
        concepts=entry.concepts or PAPER_CONCEPTS[entry.kind],
        definitions=config.model.detector.definitions,
        text_context=config.model.detector.text_context,
        chunker=entry.chunker,
        generic_words=entry.generic_words,
        phrases=entry.phrases,
        caption_context=config.model.text.context if config.objective == "joint" and entry.kind == "pairs" else None,
    )


def make_dictionary(config: Config, sources: Sequence[Source]) -> ConceptDictionary:
    """The categories of the sets' cards and of `data.N.dictionary`, with their definitions.

    Raises:
        ValueError: a dictionary is missing or is none.
    """
    files = dict.fromkeys(Path(entry.dictionary) for entry in config.data if entry.dictionary)
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise ValueError(f"data.N.dictionary {absent[0]}: found no file; {_MAKE_ONE}")
    return merge_cards((source.shards.card for source in sources), files)


_MAKE_ONE = f"make one with `{RECIPE}`, or read bare names with model.detector.definitions=false"


def check_concepts(config: Config, sources: Sequence[Source]) -> None:
    """Refuse `name, definition` where training would read bare names, before a model is built.

    Raises:
        ValueError: the dictionary is missing, no name of it or of a set's categories has a definition, or the chunker
            of pairs is not installed.
    """
    if not config.alternates:
        return
    for entry in config.data:
        if entry.kind == "pairs":
            make_chunker(entry.chunker, entry.generic_words)
    dictionary = make_dictionary(config, sources)
    if not config.model.detector.definitions:
        return
    if not any(dictionary.definitions.values()):
        raise ValueError(
            f"model.detector.definitions true: none of the {len(dictionary):,} names of the cards and of "
            f"data.N.dictionary has a definition; {_MAKE_ONE}"
        )
    for entry, source in zip(config.data, sources, strict=True):
        names = Vocabulary.of_card(source.shards.card).names if entry.kind == "detection" else ()
        bare = [name for name in names if not dictionary.definition(name)]
        if names and len(bare) == len(names):
            raise ValueError(
                f"model.detector.definitions true: none of the {len(names):,} categories of {entry.path} meets a "
                f"definition (first: {names[0]!r}); set data.N.dictionary: {_MAKE_ONE}"
            )
        if len(bare) > len(names) / 10 and comm.is_main():
            message = f"{len(bare):,} of {len(names):,} categories have no definition (first: {bare[0]!r})"
            print(f"warning: {entry.path}: {message}", file=sys.stderr)


def export_dictionary(config: Config, sources: Sequence[Source]) -> ConceptDictionary | None:
    """What an export takes along, to be asked as it was trained; None for bare names and for encoders alone."""
    reads = config.alternates and config.model.detector.definitions
    return make_dictionary(config, sources) if reads else None


def make_alternation(
    config: Config,
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerBase,
    first_step: int,
    tower: PreTrainedConfig,
    prompts: PromptSampler | None = None,
) -> Alternation:
    """The batches of this rank from an optimiser step on, one kind a step.

    Raises:
        ValueError: two sources of a kind differ in what a batch has once: size, mirror, names.
    """
    dictionary = make_dictionary(config, sources)
    divisor = canvas_divisor(tower, config.model.detector.strides)
    kinds = dict[str, KindBatches]()
    for kind, rows in config.kinds.items():
        entries, own = [config.data[row] for row in rows], [sources[row] for row in rows]
        names = ("image_size", "flip", "concepts", "chunker", "generic_words", "phrases")
        shared = {tuple(getattr(entry, name) for name in names) for entry in entries}
        if len(shared) > 1:
            raise ValueError(f"data: all sources of kind {kind} share {', '.join(names)}, got {shared}")
        each = (config.run.seed, comm.rank(), comm.world_size())
        if kind == "regions":
            last, most = config.steps * config.train.accumulation, config.loss.regions_per_image
            kinds[kind] = StepBatches(own, tokenizer, image_side(tower), most, *each, 0, last, prompts)
        else:
            recipe = make_recipe(config, entries[0], image_side(tower), divisor)
            kinds[kind] = ConceptBatches(own, recipe, dictionary, tokenizer, *each)
    odds = kinds_odds(config, sources)
    return Alternation(kinds, odds, config.run.seed, config.train.accumulation, first_step, config.steps, config.starts)


def detection_size(config: Config, tower: PreTrainedConfig) -> tuple[int, int] | None:
    """(short, long) side in pixels of a detection image at test: the largest of training; None without a detector."""
    if not config.alternates:
        return None
    sizes = []
    for entry in config.data:
        if entry.kind in ("detection", "grounding"):
            size = image_side(tower) if entry.image_size is None else entry.image_size
            sizes += [(size, size)] if isinstance(size, int) else list(size)
    return max(sizes, default=(image_side(tower),) * 2)


def kinds_odds(config: Config, sources: Sequence[Source] | None) -> dict[str, float]:
    """Of each kind: what was asked for, else the steps that one pass over its sources takes; 1 if neither is known."""
    odds = dict[str, float]()
    for kind, rows in config.kinds.items():
        asked = [config.data[row].weight for row in rows]
        given = [weight for weight in asked if weight is not None]
        own = [] if sources is None else [sources[row] for row in rows]
        passes = sum(s.shards.num_samples for s in own) / sum(s.batch_size for s in own) if own else 1.0
        odds[kind] = sum(given) if given else passes
    return odds


def alternating_samples(config: Config, sources: Sequence[Source]) -> int:
    """Samples that a whole run takes where each step has one kind of data, and each kind its own batch."""
    sizes = [sum(config.data[row].batch_size for row in rows) for rows in config.kinds.values()]
    kinds = make_schedule(kinds_odds(config, sources), config.steps, config.run.seed, config.starts)
    steps = np.bincount(kinds, minlength=len(sizes))
    return int(steps @ np.array(sizes)) * config.train.accumulation


def detection_terms(config: Config) -> DetectionTerms:
    """The settings of the detection losses."""
    return DetectionTerms(**shared_fields(config.loss.detection, DetectionTerms))


def detection_weights(config: Config) -> dict[str, float]:
    """Weight of each term of a concept step."""
    loss = config.loss.detection
    return {**{name: getattr(loss, name) for name in DETECTION_TERMS}, "image_text": config.loss.image_text}


def make_concept_losses(config: Config, stepper: Stepper, region_losses: Losses) -> Losses:
    """One forward and the losses of whatever kind the step has; region steps go to `region_losses`."""
    return partial(
        _losses,
        stepper=stepper,
        terms=detection_terms(config),
        weights=detection_weights(config),
        captioned=config.objective == "joint",
        region_losses=region_losses,
    )


def _losses(
    batch: ConceptBatch,
    step: int,
    *,
    stepper: Stepper,
    terms: DetectionTerms,
    weights: Mapping[str, float],
    captioned: bool,
    region_losses: Losses,
) -> tuple[LossReport, torch.Tensor]:
    if not isinstance(batch, ConceptBatch):
        return region_losses(batch, step)
    captions = {}
    if captioned and batch.kind == "pairs":  # by kind and not by content: all ranks must exchange the same things
        captions = {"caption_ids": batch.caption_ids, "caption_attention": batch.caption_attention}
    outputs = stepper.forward(
        pixel_values=batch.pixel_values,
        input_ids=batch.concept_ids,
        attention_mask=batch.concept_attention,
        with_logits=False,
        **captions,
    )
    report = detection_objective(cast("DetectionOutputs", outputs), batch, step, terms)
    return report, cast("torch.Tensor", sum(weights[name] * term for name, term in report.terms.items()))
