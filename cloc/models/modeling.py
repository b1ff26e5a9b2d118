"""`ClocVisionModel` (tower, projection, Prompter, box head) and `ClocModel` (with the text tower and temperatures).

Letters: B images, M prompts an image, N patch tokens, D width, T text rows, E shared embedding, L text tokens,
C captions, U different phrases, R regions, G regions that feed the grounding loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from cloc.models.configuration import ClocConfig, ClocVisionConfig
from cloc.models.packing import PackedTexts, Texts, can_pack, pack, packed_hidden
from cloc.models.prompter import BoxHead, ImageTokens, Prompter
from cloc.models.prompts import check_kinds, gather_prompts
from cloc.models.roi_align import ImageMap, RoiAlignPrompter
from cloc.models.temperature import inverse_temperature
from cloc.structures import Outputs
from cloc.towers.tower import check_tower, encode, patch_grid, tower_width


@dataclass
class ClocVisionOutput(ModelOutput):
    """One image encoding, from which any number of prompts is answered.

    Attributes:
        image_embeds: (B, E), unit norm.
        pooler_output: (B, D) the tower's pooled vector.
        last_hidden_state: (B, N, D) patch tokens before the tower's final norm, without CLS.
    """

    image_embeds: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class ClocPreTrainedModel(PreTrainedModel):
    """Initialisation shared by both models."""

    config_class = ClocConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Prompter):
            for kind in (module.corner_type, module.point_type, module.mask_type):
                if kind is not None:
                    init.normal_(kind, std=0.02)
        elif isinstance(module, ClocModel):
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.region_logit_scale is not None:
                init.constant_(module.region_logit_scale, self.config.logit_scale_init_value)
            for bias in (module.logit_bias, module.region_logit_bias):
                if bias is not None:
                    init.constant_(bias, self.config.logit_bias_init_value)


class ClocVisionModel(ClocPreTrainedModel):
    """The image side of CLOC: promptable image embeddings (CLOC section 3.3)."""

    config_class = ClocVisionConfig
    base_model_prefix = "vision"
    main_input_name = "pixel_values"
    # An export holds both sides; loading the image side alone leaves the text side on purpose.
    _keys_to_ignore_on_load_unexpected = [r"^text\.", r"^text_projection\.", r"logit_(scale|bias)$", r"^detector\."]  # noqa: RUF012

    def __init__(self, config: ClocVisionConfig) -> None:
        super().__init__(config)
        check_tower(config.tower)
        width = tower_width(config.tower)
        self.tower = AutoModel.from_config(config.tower, trust_remote_code=False)
        self.visual_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.prompter = self.box_head = None
        if config.has_prompter and config.prompter_kind == "roi_align":
            self.prompter = RoiAlignPrompter(width, config.projection_dim)
        elif config.has_prompter:
            self.prompter = Prompter(
                width,
                config.projection_dim,
                config.prompter_mlp_ratio,
                config.prompter_pool,
                config.prompter_token_positions,
                config.prompter_max_cycles,
                config.prompter_prompts,
            )
            self.box_head = BoxHead(width) if config.has_box_head else None
        self.post_init()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return patch_grid(self.config.tower)

    def forward(self, pixel_values: torch.Tensor) -> ClocVisionOutput:
        """Encode (B, 3, H, W) normalised images once."""
        if len(pixel_values) == 0:  # a rank without an image still owes its parameters a (zero) gradient
            one = self(pixel_values.new_zeros(1, *pixel_values.shape[1:]))
            return ClocVisionOutput(one.image_embeds[:0], one.pooler_output[:0], one.last_hidden_state[:0])
        tokens, pooled = encode(self.tower, pixel_values)
        return ClocVisionOutput(F.normalize(self.visual_projection(pooled), dim=-1), pooled, tokens)

    def prompter_tokens(self, encoded: ClocVisionOutput) -> ImageTokens | ImageMap:
        """The image as the Prompter reads it.

        Raises:
            ValueError: this encoder was trained with the CLIP loss alone and has no Prompter.
        """
        if self.prompter is None:
            raise ValueError(
                "this encoder has no Prompter (objective clip): it has image embeddings only; "
                "use an export trained with objective=cloc for regions"
            )
        return self.prompter.image_tokens(encoded.last_hidden_state, self.grid)

    def get_region_features(
        self,
        pixel_values: torch.Tensor,
        boxes: torch.Tensor | None = None,
        boxes_mask: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        points_mask: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        masks_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Region embeddings of box, point and mask prompts, from one image encoding.

        Args:
            pixel_values: (B, 3, H, W) normalised.
            boxes: (B, Mb, 4) xyxy in [0, 1] of the canvas.
            boxes_mask: (B, Mb) True where the box is real; other rows come back as zeros.
            points: (B, Mp, 2) x, y in [0, 1] of the canvas.
            points_mask: (B, Mp), as `boxes_mask`.
            masks: (B, Mm, rows, columns) coverage of the canvas in [0, 1], on a raster that divides into the patches.
            masks_mask: (B, Mm), as `boxes_mask`.

        Returns:
            (B, M, E), unit norm where real: boxes, then points, then masks, M of them together. A row does not depend
            on the others.

        Raises:
            ValueError: this encoder was not trained with a kind of these prompts, or a shape does not fit.
        """
        asked = {"box": boxes, "point": points, "mask": masks}
        check_kinds([kind for kind, values in asked.items() if values is not None], self.config.prompter_prompts)
        if boxes is not None and points is None and masks is None:
            image = self.prompter_tokens(self(pixel_values))
            embeds = self.prompter.project(self.prompter(self.prompter.box_tokens(boxes), image))
            return embeds if boxes_mask is None else embeds * boxes_mask.unsqueeze(-1).to(embeds.dtype)
        prompts = gather_prompts(boxes, boxes_mask, points, points_mask, masks, masks_mask, self.grid)
        image = self.prompter_tokens(self(pixel_values))
        tokens, there = self.prompter.mixed_tokens(prompts.kinds, prompts.places, prompts.cover, image)
        embeds = self.prompter.project(self.prompter(tokens, image, there))
        return embeds * prompts.real.unsqueeze(-1).to(embeds.dtype)

    def ground(self, pixel_values: torch.Tensor, phrases: torch.Tensor) -> torch.Tensor:
        """One box for each phrase prompt.

        Args:
            pixel_values: (B, 3, H, W) normalised.
            phrases: (B, P, E) text features, unit norm.

        Returns:
            (B, P, 4) xyxy in [0, 1] of the canvas; the processor's `post_process_boxes` turns it into pixels.

        Raises:
            ValueError: this encoder has no Prompter, RoI-Align in its place, which takes boxes only, or no box head.
        """
        image = self.prompter_tokens(self(pixel_values))
        if self.box_head is None and isinstance(self.prompter, Prompter):
            raise ValueError(
                "this encoder has no box head (trained with loss.grounding 0): it gives no box for a phrase; use an "
                "export trained with loss.grounding above 0"
            )
        return self.box_head(self.prompter(self.prompter.phrase_tokens(phrases), image))


class ClocModel(ClocPreTrainedModel):
    """CLIP with promptable image embeddings (CLOC section 3)."""

    base_model_prefix = "cloc"
    # An export with a detector holds an encoder as well.
    _keys_to_ignore_on_load_unexpected = [r"^detector\."]  # noqa: RUF012

    def __init__(self, config: ClocConfig) -> None:
        super().__init__(config)
        self.vision = ClocVisionModel(config.vision_config)
        self.text = AutoModel.from_config(config.text_config, trust_remote_code=False)
        self.text_projection = nn.Linear(
            config.text_config.hidden_size, config.vision_config.projection_dim, bias=False
        )
        # One entry and not none: DeepSpeed's broadcast refuses parameters without a dimension.
        self.logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        self.region_logit_scale = None
        if self.has_prompter and not config.share_temperature:
            self.region_logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        self.logit_bias = self.region_logit_bias = None  # the sigmoid form's
        if config.logit_bias_init_value is not None:
            self.logit_bias = nn.Parameter(torch.tensor([float(config.logit_bias_init_value)]))
            if self.region_logit_scale is not None:
                self.region_logit_bias = nn.Parameter(torch.tensor([float(config.logit_bias_init_value)]))
        self.fresh: set[str] = set()  # parameters beside a tower with starting weights that started anew
        self.post_init()

    @property
    def has_prompter(self) -> bool:
        """False for an encoder trained with the CLIP loss alone."""
        return self.config.vision_config.has_prompter

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised images to (B, E), unit norm."""
        return self.vision(pixel_values).image_embeds

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """(T, L) token ids, and 1 where a token is real, to (T, E), unit norm."""
        if len(input_ids) == 0:  # a rank without a text still owes its parameters a (zero) gradient
            eos = input_ids.new_full((1, 2), self.config.text_config.eos_token_id)
            return self.get_text_features(eos)[:0]
        pooled = self.text(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.text_projection(pooled), dim=-1)

    def get_texts_features(self, *groups: Texts) -> tuple[torch.Tensor, ...]:
        """`get_text_features` of each group of texts; where the tower is causal, in one call and without padding.

        Raises:
            ValueError: a text is padded on the left.
        """
        if not can_pack(self.text):
            return tuple(self.get_text_features(ids, attention) for ids, attention in groups)
        sizes = [len(ids) for ids, _ in groups]
        if not sum(sizes):
            return (self.get_text_features(groups[0][0]),) * len(groups)
        return self.get_packed_features(pack(groups, self.text.config.eos_token_id)).split(sizes)

    def get_packed_features(self, texts: PackedTexts) -> torch.Tensor:
        """(S, E), unit norm, of texts that lie in rows."""
        return F.normalize(self.text_projection(packed_hidden(self.text, texts)), dim=-1)

    def get_region_features(
        self,
        pixel_values: torch.Tensor,
        boxes: torch.Tensor | None = None,
        boxes_mask: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        points_mask: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        masks_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `ClocVisionModel.get_region_features`."""
        return self.vision.get_region_features(pixel_values, boxes, boxes_mask, points, points_mask, masks, masks_mask)

    def ground(self, pixel_values: torch.Tensor, phrases: torch.Tensor) -> torch.Tensor:
        """See `ClocVisionModel.ground`."""
        return self.vision.ground(pixel_values, phrases)

    def scales(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The inverse temperatures of the image-text and of the region-text loss, at most 100."""
        image = inverse_temperature(self.logit_scale)
        if self.region_logit_scale is None:
            return image, image
        return image, inverse_temperature(self.region_logit_scale)

    def biases(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The biases of the image-text and of the region-text loss in their sigmoid form; None in the softmax form."""
        if self.logit_bias is None:
            return None, None
        return self.logit_bias[0], (self.logit_bias if self.region_logit_bias is None else self.region_logit_bias)[0]

    def forward(
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
        captions, *others = self.get_texts_features(*asked)
        outputs = Outputs(
            image_embeds=encoded.image_embeds,
            caption_embeds=captions,
            logit_scale=scale,
            logit_bias=bias,
        )
        if not self.has_prompter:
            return outputs
        prompter = self.vision.prompter
        image = self.vision.prompter_tokens(encoded)
        phrases = others[0]
        if prompt_kinds is None:
            pooled = prompter(prompter.box_tokens(boxes), image)
        else:
            tokens, there = prompter.mixed_tokens(prompt_kinds, prompt_coords, prompt_patch_coverage, image)
            pooled = prompter(tokens, image, there)
        outputs.region_embeds = prompter.project(pooled[boxes_mask])
        outputs.phrase_embeds = phrases
        outputs.region_logit_scale = region_scale
        outputs.region_logit_bias = region_bias
        if self.vision.box_head is not None:
            padded = phrases.new_zeros(*boxes_mask.shape, phrases.shape[-1])
            padded[boxes_mask] = phrases[phrase_of_region]
            grounded = self.vision.box_head(prompter(prompter.phrase_tokens(padded), image))
            outputs.grounded_boxes = grounded[boxes_mask][unique_in_image]
        return outputs
