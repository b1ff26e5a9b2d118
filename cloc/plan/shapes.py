"""What one device gets for one forward pass, as far as work and memory depend on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloc.structures import ConceptKind


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
