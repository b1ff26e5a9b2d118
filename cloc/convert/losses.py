"""How much a conversion may lose for one reason before it says so instead of finishing.

A set that loses most of its boxes because of how one field is written looks finished, trains, and is wrong. So more
than a tenth for one reason ends a conversion with that line, unless it was told to go on. Photos that are not there are
no such reason (web sets lose a third of them), nor is what is left out on purpose, such as crowds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHARE, FEWEST = 0.1, 5
"""Share that may be lost for one reason, and how many must be lost before the share counts, unless all are."""

BOXES = (
    "bad_annotation", "unknown_image", "unknown_category", "duplicate_id", "bad_box", "nan_box", "empty_box",
    "box_outside", "box_of_0_to_1", "bad_region", "bad_span", "empty_phrase", "label_of_other_category",
    "bad_expression", "expression_of_unknown_image", "expression_of_unknown_annotation",
    "expression_of_unusable_box",
)  # fmt: skip
"""Reasons for which a box is left out."""
IMAGES = (
    "image_of_other_size", "image_of_other_shape", "image_with_swapped_sides", "image_unreadable",
    "image_of_other_format", "image_too_large", "image_ambiguous", "image_of_other_row", "image_without_name",
    "bad_file_name", "bad_image_entry", "bad_image_data", "bad_row", "bad_key", "bad_entry", "bad_sample",
)  # fmt: skip
"""Reasons for which an image or a row is left out."""
_SAID = {
    "unknown_category": "category_id is none of the list categories",
    "unknown_image": "image_id is none of the list images",
    "duplicate_id": "the same box stands in the file twice",
    "box_of_0_to_1": "boxes of less than a pixel: are they shares of the image?",
    "expression_of_unusable_box": "the annotation that it speaks of has no usable box",
    "image_ambiguous": "several photos have this name",
    "image_of_other_row": "the photo's own JSON tells another address or caption: keys of another download",
    "image_of_other_size": "the photo has another size than the file tells",
}


@dataclass(frozen=True)
class Loss:
    """What was lost for one reason.

    Attributes:
        reason: as it is counted.
        what: `boxes` or `images`.
        lost: how many.
        total: of how many.
        example: the first message about it, empty where there is none.
    """

    reason: str
    what: str
    lost: int
    total: int
    example: str = ""

    @property
    def ends(self) -> bool:
        """Whether a conversion should not finish with it."""
        return self.lost >= FEWEST or self.lost == self.total > 1

    def __str__(self) -> str:
        explained = f" ({_SAID[self.reason]})" if self.reason in _SAID else ""
        first = f"; first: {self.example}" if self.example else ""
        return f"{self.lost:,} of {self.total:,} {self.what} were left out as {self.reason}{explained}{first}"


def find_largest_loss(card: Mapping[str, Any], examples: Mapping[str, str]) -> Loss | None:
    """The largest share that was lost for one reason, where it is more than `SHARE`; None where there is none such.

    Args:
        card: with `counts` and `dropped`.
        examples: the first message of a reason.
    """
    dropped, counts = card["dropped"], card["counts"]
    totals = {
        "boxes": counts["regions"] + sum(dropped.get(reason, 0) for reason in (*BOXES, "region_of_dropped_image")),
        "images": counts["samples"] + sum(dropped.get(reason, 0) for reason in (*IMAGES, "image_missing")),
    }
    losses = [
        Loss(reason, what, dropped[reason], totals[what], examples.get(reason, ""))
        for what, reasons in (("boxes", BOXES), ("images", IMAGES))
        for reason in reasons
        if dropped.get(reason, 0) > SHARE * totals[what]
    ]
    return max(losses, key=lambda loss: (loss.ends, loss.lost / loss.total), default=None)


def list_notes(card: Mapping[str, Any]) -> list[str]:
    """What a finished conversion still has to say: its largest loss, and what stays in and may yet be wrong.

    Args:
        card: with `counts` and `dropped`.
    """
    dropped, found = card["dropped"], list[str]()
    loss = find_largest_loss(card, {})
    if loss is not None:
        found.append(str(loss))
    if card.get("kind") in ("regions", "detection") and not card["counts"]["regions"]:
        found.append("not one box is in this set; are they in another file?")
    beyond, again = dropped.get("box_beyond_its_image", 0), dropped.get("file_name_again", 0)
    if beyond:
        total = card["counts"]["regions"] + sum(dropped.get(reason, 0) for reason in BOXES)
        share = min(beyond / max(total, 1), 1)
        found.append(
            f"about {beyond:,} of {total:,} boxes ({share:.0%}) end outside their image or have no area; "
            "were some written in another frame, or for a picture of another size?"
        )
    if dropped.get("box_of_smaller_picture"):
        found.append(
            "all boxes lie in the upper left of their images, none comes near the right and lower sides: were they "
            "drawn on a smaller copy of the photos? then multiply them by the ratio of the sides"
        )
    if dropped.get("box_of_padded_square"):
        found.append(
            "no box reaches into the part that padding to a square would add, though the photos are not square: are "
            "they of the padded photo, as LLaVA-1.5's own? then --coordinates square"
        )
    if again:
        found.append(
            f"{again:,} images name a photo that another image names too: each is a sample of its own and knows only "
            "the boxes under its own id; join them under one id"
        )
    return found
