"""The models as they are trained: one forward a step gives all features and scales, from which the losses are made.

The weights, their names and what is saved are those of the models that users load.

Letters: B images, M regions an image, C captions, U different phrases or concepts, R regions, T text tokens, E shared
embedding, G regions that feed the grounding loss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from cloc.models.detection import ClocForObjectDetection
from cloc.models.modeling import ClocModel
from cloc.structures import DetectionOutputs, Outputs


class ClocForPreTraining(ClocModel):
    """`ClocModel` whose call is a training step of CLOC's objective, or of CLIP's where there is no Prompter."""

    saved_as = "ClocModel"

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As transformers'; the folder names the class that users load."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.config.architectures = [self.saved_as]
        self.config.save_pretrained(save_directory)

    def forward(  # type: ignore[override]  # a step's arguments and features are others
        self,
        pixel_values: torch.Tensor,
        caption_ids: torch.Tensor,
        caption_attention: torch.Tensor,
        boxes: torch.Tensor,
        boxes_mask: torch.Tensor,
        phrase_ids: torch.Tensor,
        phrase_attention: torch.Tensor,
        phrase_of_region: torch.Tensor,
        unique_in_image: torch.Tensor,
        prompt_kinds: torch.Tensor | None = None,
        prompt_coords: torch.Tensor | None = None,
        prompt_patch_coverage: torch.Tensor | None = None,
    ) -> Outputs:
        """All features of one training step; the arguments are the fields of `Batch`, which gives their shapes."""
        encoded = self.vision(pixel_values)
        scale, region_scale = self.scales()
        bias, region_bias = self.biases()
        asked = [(caption_ids, caption_attention)]
        if self.has_prompter:
            asked.append((phrase_ids, phrase_attention))
        captions, *others = self.encode_text_groups(*asked)
        outputs = Outputs(
            image_embeds=encoded.image_embeds,
            caption_embeds=captions,
            logit_scale=scale,
            logit_bias=bias,
        )
        if not self.has_prompter:
            return outputs
        prompter = self.vision.prompter
        assert prompter is not None
        image = self.vision.to_prompter_tokens(encoded)
        phrases = others[0]
        if prompt_kinds is None:
            pooled = prompter(prompter.embed_boxes(boxes), image)
        else:
            tokens, real = prompter.embed_prompts(prompt_kinds, prompt_coords, prompt_patch_coverage, image)
            pooled = prompter(tokens, image, real)
        outputs.region_embeds = prompter.project(pooled[boxes_mask])
        outputs.phrase_embeds = phrases
        outputs.region_logit_scale = region_scale
        outputs.region_logit_bias = region_bias
        if self.vision.box_head is not None:
            padded = phrases.new_zeros(*boxes_mask.shape, phrases.shape[-1])
            padded[boxes_mask] = phrases[phrase_of_region]
            grounded = self.vision.box_head(prompter(prompter.embed_phrases(padded), image))
            outputs.grounded_boxes = grounded[boxes_mask][unique_in_image]
        return outputs


class ClocDetectorForPreTraining(ClocForObjectDetection, ClocForPreTraining):
    """`ClocForObjectDetection` whose call is a training step: of concepts, or of CLOC's objective."""

    saved_as = "ClocForObjectDetection"

    def forward(  # type: ignore[override]  # a step's arguments and features are others
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        with_logits: bool = True,
        caption_ids: torch.Tensor | None = None,
        caption_attention: torch.Tensor | None = None,
        region_inputs: Mapping[str, torch.Tensor] | None = None,
    ) -> DetectionOutputs | Outputs:
        """All features of one training step.

        Args:
            pixel_values: (B, 3, H, W) normalised; B may be 0.
            input_ids: (U, T) tokens of the concepts.
            attention_mask: (U, T) 1 where a token is real.
            text_embeds: (U, E) instead of tokens, as `embed_concepts` gives them.
            with_logits: False leaves the (B, K, U) logits out; the losses compute their own.
            caption_ids: (C, T) tokens of whole captions; adds the CLIP side of the same tower run.
            caption_attention: (C, T) 1 where a token is real.
            region_inputs: the other arguments of `ClocForPreTraining.forward`: a step of CLOC's own objective instead.
        """
        if region_inputs is not None:
            return ClocForPreTraining.forward(self, pixel_values, **region_inputs)
        outputs = self.compare_concepts(
            pixel_values, input_ids, attention_mask, text_embeds, with_logits, pooled=caption_ids is not None
        )
        if caption_ids is not None:
            outputs.caption_embeds = self.get_text_features(caption_ids, caption_attention)
            outputs.image_logit_scale = self.scales()[0]
        return outputs
