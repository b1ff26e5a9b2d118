"""`ClocForObjectDetection`: open-vocabulary detection on the shared encoder (DetCLIPv2), and all of `ClocModel` too.

Letters: B images, K anchors, U concepts, T text tokens, E shared embedding, C captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers.image_utils import ImageInput

from cloc.models.configuration import LEGACY_END, ClocConfig
from cloc.models.deprecated import rename_argument, warn_deprecated
from cloc.models.detector.atss import AtssDetector, init_weights
from cloc.models.detector.postprocess import select_detections
from cloc.models.modeling import ClocModel
from cloc.models.processing import ClocProcessor
from cloc.models.prompt_inputs import as_images
from cloc.structures import DetectionOutputs
from cloc.tokenizer import tokenise
from cloc.towers.tower import canvas_divisor, feature_maps, feature_spec

TEXT_ROWS = 256
"""Concepts that go through the text tower at once when no gradient is wanted."""
KEPT_LISTS = 8
"""Concept lists whose embeddings are kept."""
PER_IMAGE = ("logits", "pred_boxes", "centerness", "class_features", "image_embeds", "objectness")


class ClocForObjectDetection(ClocModel):
    """`ClocModel` with a detector on the same tower and the same text tower; its keys begin with `detector.`, so that
    the other classes load the same folder and leave them out.
    """

    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: ClocConfig) -> None:
        super().__init__(config)
        settings = config.detector_config
        if settings is None:
            raise ValueError(
                "this config has no detector_config: the folder is an encoder without a detector; load it with "
                "AutoModel, or train one with objective=detclip or joint"
            )
        self.detector = AtssDetector(
            feature_spec(config.vision_config.tower),
            config.vision_config.projection_dim,
            settings.width,
            settings.strides,
            settings.num_convs,
            settings.anchor_scale,
            settings.deformable,
            settings.normalize,
            settings.logit_scale_init_value,
            settings.prior,
            settings.objectness,
        )
        self._embedded: dict[tuple[str, ...], torch.Tensor] = {}
        self._embedded_with: tuple = ()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_weights(module)

    @property
    def canvas_divisor(self) -> int:
        """The sides of a canvas are multiples of this."""
        return canvas_divisor(self.config.vision_config.tower, self.config.detector_config.strides)

    def embed_concepts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Concept embeddings for the detector.

        Args:
            input_ids: (U, T) token ids; of longer texts `text_context` are read, the last of which is then their end
                token, as `tokenise` cuts them.
            attention_mask: (U, T) 1 where a token is real.

        Returns:
            (U, E), not normalised unless the detector's config says so.
        """
        eos = self.config.text_config.eos_token_id
        if len(input_ids) == 0:  # a rank without a concept still owes its parameters a (zero) gradient
            return self.embed_concepts(input_ids.new_full((1, 2), eos))[:0]
        context = self.config.detector_config.text_context
        if input_ids.shape[1] > context:
            longer = torch.ones_like(input_ids[:, context]).bool()
            if attention_mask is not None:
                longer, attention_mask = attention_mask[:, context].bool(), attention_mask[:, :context]
            # A tower with the id 2 pools at the largest token of a text: that one is its end, see `LEGACY_END`.
            ends = input_ids.amax(dim=1) if eos == LEGACY_END else input_ids.new_tensor(eos)
            input_ids = input_ids[:, :context].clone()
            input_ids[:, -1] = torch.where(longer, ends, input_ids[:, -1])
        pooled = self.text(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        embeds = self.text_projection(pooled)
        return F.normalize(embeds, dim=-1) if self.config.detector_config.normalize else embeds

    def forward(  # type: ignore[override]  # concepts on another canvas
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        with_logits: bool = True,
        **training: Any,
    ) -> DetectionOutputs:
        """Detect concepts on canvases; the arguments are what `ClocProcessor` gives with `canvas="detection"`.

        Args:
            pixel_values: (B, 3, H, W) normalised, H and W multiples of `canvas_divisor`; B may be 0.
            input_ids: (U, T) tokens of the concepts.
            attention_mask: (U, T) 1 where a token is real.
            text_embeds: (U, E) instead of tokens, as `embed_concepts` gives them.
            with_logits: False leaves the (B, K, U) logits out.
            **training: what a training step adds, deprecated: `ClocDetectorForPreTraining` takes it.

        Raises:
            ValueError: neither tokens nor embeddings of concepts.
        """
        if training:
            from cloc.models.pretraining import ClocDetectorForPreTraining  # builds on this module

            warn_deprecated("a training batch for ClocForObjectDetection", "cloc.ClocDetectorForPreTraining")
            concepts = (input_ids, attention_mask, text_embeds, with_logits)
            return ClocDetectorForPreTraining.forward(self, pixel_values, *concepts, **training)
        return self.compare_concepts(pixel_values, input_ids, attention_mask, text_embeds, with_logits)

    def compare_concepts(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        with_logits: bool,
        pooled: bool = False,
    ) -> DetectionOutputs:
        """See `forward`; with `pooled` also the image embeddings of the same tower run."""
        if (input_ids is None) == (text_embeds is None):
            raise ValueError("detector: expected concepts, either as input_ids or as text_embeds; pass exactly one")
        outputs = self._image_side(pixel_values, pooled)
        outputs.text_embeds = text_embeds if input_ids is None else self.embed_concepts(input_ids, attention_mask)
        outputs.logit_scale, outputs.logit_bias = self.detector.get_scale_and_bias()
        if with_logits:
            similarity = outputs.class_features @ outputs.text_embeds.to(outputs.class_features.dtype).T
            outputs.logits = outputs.logit_scale * similarity + outputs.logit_bias
        return outputs

    def _image_side(self, pixel_values: torch.Tensor, pooled: bool = False) -> DetectionOutputs:
        """Tower, pyramid and head; with `pooled` also the image embeddings of the same tower run."""
        if len(pixel_values) == 0:  # a rank without an image still owes its parameters a (zero) gradient
            one = self._image_side(pixel_values.new_zeros(1, *pixel_values.shape[1:]), pooled)
            for name in PER_IMAGE:
                one[name] = one[name][:0] if name in one else None
            return one
        height, width = pixel_values.shape[-2:]
        answers: list[Any] = []
        hook = self.vision.tower.register_forward_hook(lambda module, inputs, answer: answers.append(answer))
        try:
            maps = feature_maps(self.vision.tower, pixel_values)
        finally:
            hook.remove()
        found = self.detector(maps, (width, height))
        outputs = DetectionOutputs(
            pred_boxes=found.pred_boxes,
            centerness=found.centerness,
            objectness=found.objectness,
            class_features=found.class_features,
            anchors=found.anchors,
            level_sizes=found.level_sizes,
            canvas=torch.tensor([width, height], device=pixel_values.device),
        )
        if pooled:
            outputs.image_embeds = F.normalize(self.vision.visual_projection(answers[0].pooler_output), dim=-1)
        return outputs

    @torch.no_grad()
    def embed_concept_names(self, concepts: Sequence[str], processor: ClocProcessor) -> torch.Tensor:
        """(U, E) embeddings of concepts given as texts. They are computed once and kept while the weights stay."""
        state = tuple(
            (value.data_ptr(), value._version, value.dtype)
            for part in (self.text, self.text_projection)
            for value in part.parameters()
        )
        if state != self._embedded_with:
            self._embedded, self._embedded_with = {}, state
        key = tuple(concepts)
        if key not in self._embedded:
            context = self.config.detector_config.text_context
            parts = [
                self.embed_concepts(*(part.to(self.device) for part in tokenise(processor.tokenizer, names, context)))
                for names in (key[start : start + TEXT_ROWS] for start in range(0, len(key), TEXT_ROWS))
            ]
            width = self.config.vision_config.projection_dim
            if len(self._embedded) >= KEPT_LISTS:
                del self._embedded[next(iter(self._embedded))]
            self._embedded[key] = torch.cat(parts) if parts else torch.zeros(0, width, device=self.device)
        return self._embedded[key]

    @rename_argument("score_threshold", "threshold")
    @torch.no_grad()
    def detect(
        self,
        images: ImageInput,
        concepts: Sequence[str],
        processor: ClocProcessor,
        limit: int = 300,
        threshold: float = 0.05,
        nms: float = 0.6,
        per_level: int = 1000,
    ) -> list[dict[str, np.ndarray]]:
        """Detect concepts on images, one image pass each, however many concepts there are.

        Args:
            images: one image or several, of any size, in any form that `ClocProcessor` takes.
            concepts: names, or names with definitions; their order gives the labels.
            processor: the export's processor, which knows the size of the canvas.
            limit: detections an image; 0 for no limit.
            threshold: least score, sqrt(sigmoid(logit) * sigmoid(centerness)).
            nms: overlap above which the weaker of two detections of one concept is left out.
            per_level: (box, concept) pairs of each level of the pyramid that reach the suppression; more serve a high
                `limit` only.

        Returns:
            For each image `boxes` (n, 4) float64 xyxy in pixels of the original image, cut at its border (what lies on
            the padding alone is left out), `scores` (n,) in falling order, and `labels` (n,) int64 rows of `concepts`.
        """
        if self.training:
            self.eval()
            try:
                return self.detect(images, concepts, processor, limit, threshold, nms, per_level)
            finally:
                self.train()
        texts = self.embed_concept_names(concepts, processor)
        asked = {"limit": limit, "threshold": threshold, "iou_threshold": nms, "per_level": per_level}
        return [self._detect_one(image, texts, processor, asked) for image in as_images(images)]

    def _detect_one(
        self, image: Image.Image, texts: torch.Tensor, processor: ClocProcessor, asked: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        images = processor.detection_images()
        outputs = self._image_side(images(image)["pixel_values"].to(self.device, self.dtype))
        scale, bias = self.detector.get_scale_and_bias()
        features = outputs.class_features[0]
        texts = (scale * texts).to(features.dtype).T
        boxes, scores, labels = select_detections(
            lambda rows: torch.addmm(bias.to(features.dtype), features[rows], texts),
            texts.shape[1],
            outputs.pred_boxes[0],
            outputs.centerness[0],
            outputs.level_sizes.tolist(),
            **asked,
            extent=images.extent(outputs.canvas.tolist(), *image.size),
        )
        pixels, real = images.to_pixels(boxes, outputs.canvas.tolist(), *image.size)
        return {"boxes": pixels, "scores": scores.cpu().numpy()[real], "labels": labels.cpu().numpy()[real]}
