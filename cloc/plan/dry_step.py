"""One training step on fake tensors: what it computes and the most memory it holds, for models of any size.

Nothing is computed and nothing is stored, so a ViT-H on a laptop takes seconds. Regions are taken as if every image had
all of its prompts, since fake masks cannot be read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cloc.losses.alignment import focal_alignment
from cloc.losses.contrastive import contrast
from cloc.losses.detection import DetectionTerms
from cloc.losses.objectives import grounding
from cloc.losses.pairs import Form, contrast_pairs
from cloc.losses.word_region import score_concepts
from cloc.models.configuration import ClocConfig
from cloc.models.modeling import ClocModel
from cloc.models.packing import can_pack, lay_rows
from cloc.models.pretraining import ClocDetectorForPreTraining
from cloc.models.prompter import Prompter
from cloc.plan.batch_shapes import ConceptShapes, Shapes
from cloc.structures import DetectionOutputs
from cloc.towers.tower import image_side
from cloc.train import memory_options


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive inside a `with` block, and the most there were at once.

    What an operator takes and gives back inside itself is not seen.

    Args:
        known: tensors that exist already, such as the model's parameters.
    """

    def __init__(self, known: tuple[torch.Tensor, ...] = ()) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._alive: set[int] = set()
        for tensor in known:
            self._see(tensor)

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive.add(key)
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.current -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operator and look at what it made."""
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor)
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        super().__exit__(kind, error, trace)


ROWS_OF_THE_LOSS = 4096
"""Beyond so many rows the contrast is left out of the dry step: its tiles add little and would take minutes."""


@dataclass(frozen=True, slots=True)
class DryStep:
    """What a step costs one device.

    Attributes:
        parameters: of each part.
        forward_flops, flops: of the forward pass, and of forward and backward, for the whole batch (a multiply-add is
            two), without the contrast's own matrices.
        weights: bytes of the parameters; the gradients take as much.
        working: the most bytes that activations, gradients and what is in between take at once, beside the weights.
        teacher_flops: of the forward pass of the teacher of `loss.distillation`.
        teacher: bytes of its weights.
    """

    parameters: dict[str, int]
    forward_flops: int
    flops: int
    weights: int
    working: int
    teacher_flops: int = 0
    teacher: int = 0


def dry_step(
    config: ClocConfig,
    shapes: Shapes | ConceptShapes,
    form: Form,
    bf16: bool,
    recompute: bool,
    attention: str,
    taught: bool = False,
    devices: int = 1,
    count: bool = True,
) -> DryStep:
    """Forward and backward of a fresh model on fake tensors of the CPU.

    Args:
        config: of the model.
        shapes: what one device gets.
        form: of the contrast.
        bf16: under autocast.
        recompute: keep only the inputs of the towers' layers.
        attention: as in the run's config.
        taught: with the teacher of `loss.distillation`.
        devices: whose concepts meet in the detection losses.
        count: FLOP as well, in a second pass; without it they are nought.
    """
    with FakeTensorMode():
        model = (ClocModel if config.detector_config is None else ClocDetectorForPreTraining)(config)
        memory_options.set_attention(model, attention if attention != "flash_attention_2" else "sdpa", bf16)
        if recompute:
            memory_options.checkpoint_activations(model)
        parameters = tuple(model.parameters())
        weights = _bytes(parameters)
        made = _inputs(shapes, image_side(config.vision_config.tower))

        def forward() -> Callable[[], torch.Tensor]:
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                if isinstance(shapes, ConceptShapes):
                    assert isinstance(model, ClocDetectorForPreTraining)
                    outputs = detector_forward(model, shapes, *made)
                    return lambda: detector_loss(outputs, shapes, devices)
                pairs = _pairs(model, shapes, *made)
                return lambda: _loss(model, pairs, form)

        with PeakMemory((*parameters, *made)) as memory:
            forward()().backward()
        flops = _count(forward) if count else (0, 0)
        teacher_flops = _teacher_flops(model, made[0]) if taught and count else 0
    image_side_weights = [*model.vision.tower.parameters(), *model.vision.visual_projection.parameters()]
    teacher = _bytes(image_side_weights) if taught else 0
    return DryStep(_parts(model), *flops, weights, memory.peak - weights, teacher_flops, teacher)


def _count(forward: Callable[[], Callable[[], torch.Tensor]]) -> tuple[int, int]:
    """FLOP of forward, and of forward and backward.

    In a pass of its own, since the counter's hooks keep alive what recomputation gives back.
    """
    with FlopCounterMode(display=False) as counter:
        loss = forward()
        flops = counter.get_total_flops()
        loss().backward()
    return flops, counter.get_total_flops()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _inputs(shapes: Shapes | ConceptShapes, side: int) -> tuple[torch.Tensor, ...]:
    """Pixels, captions, and phrases or concepts."""
    captions = torch.zeros(shapes.images, shapes.caption_tokens, dtype=torch.int64)
    if isinstance(shapes, ConceptShapes):
        words = torch.zeros(shapes.concepts, shapes.concept_tokens, dtype=torch.int64)
        return torch.zeros(shapes.images, 3, shapes.height, shapes.width), captions, words
    words = torch.zeros(shapes.phrases, shapes.phrase_tokens, dtype=torch.int64)
    return torch.zeros(shapes.images, 3, side, side), captions, words


def _teacher_flops(model: ClocModel, pixels: torch.Tensor) -> int:
    """Tower and projection, without a graph."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.vision(pixels)
    return counter.get_total_flops()


def _pairs(
    model: ClocModel, shapes: Shapes, pixels: torch.Tensor, captions: torch.Tensor, phrases: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of rows and texts, as in the model's own forward pass; the last pair are boxes."""
    encoded = model.vision(pixels)
    regions_too = bool(shapes.prompts) and model.has_prompter
    asked, *others = _text_features(model, [captions, phrases] if regions_too else [captions])
    pairs = [(encoded.image_embeds, asked)]
    if not regions_too:
        return pairs
    prompter = model.vision.prompter
    assert prompter is not None
    image, texts = model.vision.to_prompter_tokens(encoded), others[0]
    boxes = torch.zeros(shapes.images, shapes.prompts, 4)
    if shapes.kinds == ("box",):
        pooled = prompter(prompter.embed_boxes(boxes), image)
    else:
        kinds = torch.zeros(shapes.images, shapes.prompts, dtype=torch.int64)
        assert isinstance(prompter, Prompter)
        tokens, real = prompter.embed_prompts(kinds, boxes, torch.zeros(*kinds.shape, *model.vision.grid), image)
        pooled = prompter(tokens, image, real)
    regions = prompter.project(pooled).flatten(0, 1)
    rows = torch.arange(len(regions)) % len(texts)
    asked = texts[rows]
    if model.vision.box_head is None:
        return [*pairs, (regions, asked)]
    grounded = model.vision.box_head(
        prompter(prompter.embed_phrases(asked.view(shapes.images, -1, asked.shape[1])), image)
    )
    return [*pairs, (regions, asked), (grounded.flatten(0, 1), boxes.flatten(0, 1))]


def _text_features(model: ClocModel, groups: list[torch.Tensor]) -> list[torch.Tensor]:
    """As `ClocModel.encode_text_groups`, which reads where texts end; here all are full."""
    if not can_pack(model.text):
        return [model.get_text_features(ids) for ids in groups]
    sizes, lengths = [len(ids) for ids in groups], [ids.shape[1] for ids in groups for _ in range(len(ids))]
    rows = lay_rows(torch.cat([ids.flatten() for ids in groups]), lengths, model.text.config.eos_token_id)
    return list(model.get_packed_features(rows).split(sizes))


def _loss(model: ClocModel, features: list[tuple[torch.Tensor, torch.Tensor]], form: Form) -> torch.Tensor:
    image_scale, region_scale = model.scales()
    total = torch.zeros(())
    for number, ((rows, texts), scale) in enumerate(zip(features[:2], (image_scale, region_scale), strict=False)):
        if len(rows) > ROWS_OF_THE_LOSS:
            total = total + rows.float().sum() + texts.float().sum() + scale
            continue
        ids = torch.zeros(len(rows), dtype=torch.int64) if number else None
        softmax = Form("softmax", form.chunk)  # as large as the sigmoid form
        total = total + contrast_pairs(softmax, rows, texts, scale, None, ids, 0.9 if number else None).loss
    return total + grounding(*features[2])[0] if len(features) > 2 else total


def _parts(model: ClocModel) -> dict[str, int]:
    parts: dict[str, nn.Module | None] = {
        "vision tower": model.vision.tower,
        "text tower": model.text,
        "Prompter": model.vision.prompter,
        "box head": model.vision.box_head,
        "detector": getattr(model, "detector", None),
    }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
    rest = sum(p.numel() for p in model.parameters()) - sum(counts.values())
    return {**counts, "projections and scales": rest}


ANCHORS_A_BOX = 8
"""Positive anchors of a box, about what ATSS gives."""


def detector_forward(
    model: ClocDetectorForPreTraining,
    shapes: ConceptShapes,
    pixels: torch.Tensor,
    captions: torch.Tensor,
    concepts: torch.Tensor,
) -> DetectionOutputs:
    """As in a step of training: no class logits; captions only where the kind reads them."""
    attention = torch.ones_like(concepts)
    if not shapes.caption_tokens:
        return model(pixels, input_ids=concepts, attention_mask=attention, with_logits=False)
    whole = {"caption_ids": captions, "caption_attention": torch.ones_like(captions)}
    return model(pixels, input_ids=concepts, attention_mask=attention, with_logits=False, **whole)


def detector_loss(outputs: DetectionOutputs, shapes: ConceptShapes, devices: int) -> torch.Tensor:
    """A scalar with the graph that the kind's terms have."""
    kept = [outputs.class_features, outputs.text_embeds]
    if shapes.kind == "pairs":
        total = _word_region(outputs, devices)
    else:
        total = _alignment(outputs, shapes, devices)
        kept += [outputs.pred_boxes, outputs.centerness] if shapes.kind == "detection" else []
    captions, scale = outputs.caption_embeds, outputs.image_logit_scale
    if captions is not None:
        assert outputs.image_embeds is not None
        assert scale is not None
        total = total + contrast(outputs.image_embeds, captions, scale).loss
    return total + sum(value.sum() * 0.0 for value in kept)


def _alignment(outputs: DetectionOutputs, shapes: ConceptShapes, devices: int) -> torch.Tensor:
    features, texts = outputs.class_features.flatten(0, 1), outputs.text_embeds.float()
    others = min(devices * shapes.concepts, shapes.categories or devices * shapes.concepts) - shapes.concepts
    texts = torch.cat([texts, texts.new_zeros(max(others, 0), texts.shape[1])])
    places = torch.zeros(max(shapes.boxes, 1) * ANCHORS_A_BOX, dtype=torch.int64)
    scale, bias = outputs.logit_scale, outputs.logit_bias
    total = focal_alignment(features, texts, scale, bias, places, torch.zeros_like(places))
    if shapes.kind == "detection":
        total = total + outputs.pred_boxes.flatten(0, 1)[places].sum() + outputs.centerness.flatten()[places].sum()
    return total


def _word_region(outputs: DetectionOutputs, devices: int) -> torch.Tensor:
    features, texts = outputs.class_features, outputs.text_embeds.float()
    images = len(features)
    most = min(DetectionTerms().num_proposals, features.shape[1])
    rows = torch.zeros(images, most, 1, dtype=torch.int64).expand(-1, -1, features.shape[2])
    regions, mask = features.gather(1, rows), torch.ones(images, most, dtype=torch.bool)
    everyone = texts.repeat(devices, 1)
    found = score_concepts(everyone, regions, mask, outputs.logit_scale, "max", 1.0)
    sentences = found.new_zeros(images * devices, images).index_add(
        0, torch.zeros(len(found), dtype=torch.int64), found
    )
    columns = sentences.T.repeat(devices, 1).T[:images]
    return F.cross_entropy(columns, torch.zeros(images, dtype=torch.int64), reduction="sum", label_smoothing=0.1)
