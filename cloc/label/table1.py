"""The figures of CLOC's Table 1 for labelled shards: regions an image, lengths of texts. Sums first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cloc.structures import Sample
from cloc.tokenizer import clip_tokenizer

PAPER = (
    ("GRIT, released part", 1.8, 17.2, 4.6),
    ("WiT labelled the OWLv2 way", 5.1, 17.1, 3.9),
    ("VESL WiT 300M", 11.6, 44.9, 2.1),
    ("VESL WiT+DFN 2B", 11.5, 35.9, 2.1),
)
"""Rows of Table 1: set, regions an image, tokens of a caption, of a region's text (the paper's own tokenizer)."""


def sum_samples(samples: Sequence[Sample]) -> Counter[str]:
    """What is added up over samples: images, regions, captions, and tokens (CLIP's, without start and end)."""
    captions = [sample.caption for sample in samples if sample.caption]
    phrases = [region.phrase for sample in samples for region in sample.regions]
    return Counter(
        images=len(samples),
        regions=len(phrases),
        captions=len(captions),
        caption_tokens=_count_tokens(captions),
        region_tokens=_count_tokens(phrases),
        images_without_region=sum(not sample.regions for sample in samples),
    )


def _count_tokens(texts: list[str]) -> int:
    """Tokens of all texts together."""
    return sum(map(len, clip_tokenizer()(texts, add_special_tokens=False, verbose=False)["input_ids"])) if texts else 0


def compute_statistics(sums: Mapping[str, int]) -> dict[str, float | int | None]:
    """Table 1's figures from the sums; None where there is nothing to divide by."""
    images, regions, captions = (sums.get(name, 0) for name in ("images", "regions", "captions"))
    return {
        "images": images,
        "regions_per_image": round(regions / images, 3) if images else None,
        "caption_tokens": round(sums.get("caption_tokens", 0) / captions, 2) if captions else None,
        "region_tokens": round(sums.get("region_tokens", 0) / regions, 2) if regions else None,
        "images_without_region": sums.get("images_without_region", 0),
    }


def format_table(found: Mapping[str, float | int | None]) -> str:
    """These shards beside the paper's Table 1, as lines for the console."""
    head = f"{'':28}{'images':>12}{'regions/image':>15}{'caption tokens':>16}{'region tokens':>15}"
    figures = [found[name] for name in ("regions_per_image", "caption_tokens", "region_tokens")]
    ours = f"{'these shards':28}{found['images']:>12,}" + "".join(
        f"{'-' if value is None else format(value, '.1f'):>{width}}"
        for value, width in zip(figures, (15, 16, 15), strict=True)
    )
    paper = [f"{name:28}{'':>12}{regions:>15}{caption:>16}{region:>15}" for name, regions, caption, region in PAPER]
    return "\n".join([head, ours, *paper, "(rows below the first: CLOC Table 1, other images and another tokenizer)"])
