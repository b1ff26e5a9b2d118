"""Which (anchor, concept) entries of the alignment take no part, since nobody looked whether the concept is there.

Letters: B images, K anchors an image, U concepts of this rank, G concepts of all ranks, L labels, Q groups of anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cloc.comm import gather_rows
from cloc.structures import ConceptBatch


@dataclass(frozen=True, slots=True)
class Unknowns:
    """The unknown entries of this rank's images.

    Attributes:
        entries: (Q, G) bool, True where a concept is unknown for a group of anchors.
        group: (B K,) row of `entries` of each anchor.
        crowded: (B K,) bool, anchors whose centre lies in a box where something is unknown, a crowd's.
    """

    entries: torch.Tensor
    group: torch.Tensor
    crowded: torch.Tensor


@torch.no_grad()
def find_unknowns(batch: ConceptBatch, own_rows: torch.Tensor, num_concepts: int, anchors: torch.Tensor) -> Unknowns:
    """Hold the keys that the images name against those of the concepts of all ranks; every rank calls it together.

    Args:
        batch: of this rank, with knowledge.
        own_rows: (U,) row of each own concept among those of all ranks, which lie in the order of their text ids.
        num_concepts: G.
        anchors: (K, 4) xyxy in [0, 1] of the canvas.
    """
    knowledge = batch.knowledge
    assert knowledge is not None
    keys, _ = gather_rows(knowledge.concept_keys)
    images, per_image = len(knowledge.closed), len(anchors)
    entries = (~knowledge.closed)[:, None].repeat(1, num_concepts)
    group = torch.arange(images, device=entries.device).repeat_interleave(per_image)
    crowded = torch.zeros(images * per_image, dtype=torch.bool, device=entries.device)
    if num_concepts == 0 or images == 0:
        return Unknowns(entries, group, crowded)
    rows = keys[:, 0].unique(return_inverse=True)[1]
    for rules, value in ((knowledge.known, False), (knowledge.unknown, True)):
        rule, concept = _matches(rules[:, 1], keys[:, 1], rows)
        entries[rules[rule, 0], concept] = value
    owner = batch.boxes_mask.nonzero()[:, 0]
    entries[owner[batch.label_box], own_rows[batch.label_concept]] = False
    rule, concept = _matches(knowledge.partly[:, 1], keys[:, 1], rows)
    everywhere = knowledge.partly_boxes.isinf().any(dim=1)[rule]
    entries[knowledge.partly[rule[everywhere], 0], concept[everywhere]] = True
    rule, concept = rule[~everywhere], concept[~everywhere]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    groups = [entries]
    for image in knowledge.partly[:, 0].unique().tolist():
        boxes = knowledge.partly_boxes[(knowledge.partly[:, 0] == image) & ~knowledge.partly_boxes.isinf().any(dim=1)]
        span = slice(image * per_image, (image + 1) * per_image)
        crowded[span] |= _inside(centres, boxes).any(dim=1)
        here = knowledge.partly[rule, 0] == image
        if not here.any():
            continue
        inside = _inside(centres, knowledge.partly_boxes[rule[here]])
        patterns, index = inside.unique(dim=0, return_inverse=True)
        more = entries[image].repeat(len(patterns), 1)
        pattern, pair = patterns.nonzero(as_tuple=True)
        more[pattern, concept[here][pair]] = True
        group[span] = index + sum(map(len, groups))
        groups.append(more)
    return Unknowns(torch.cat(groups), group, crowded)


def _inside(centres: torch.Tensor, boxes_xyxy: torch.Tensor) -> torch.Tensor:
    """(K, S) bool: which centres lie in which boxes, edges included."""
    boxes = boxes_xyxy.to(centres.dtype)[None]
    return ((centres[:, None] >= boxes[..., :2]) & (centres[:, None] <= boxes[..., 2:])).all(dim=2)


def _matches(wanted: torch.Tensor, keys: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All (index in `wanted`, row of the concept) with an equal key."""
    ordered, order = keys.sort()
    wanted = wanted.contiguous()
    first, end = (torch.searchsorted(ordered, wanted, right=right) for right in (False, True))
    often = end - first
    index = torch.arange(len(wanted), device=wanted.device).repeat_interleave(often)
    start = (often.cumsum(0) - often).repeat_interleave(often)
    offset = torch.arange(len(index), device=wanted.device) - start
    return index, rows[order[first.repeat_interleave(often) + offset]]
