"""`ClocVisionModel` (tower, projection, Prompter, box head) and `ClocModel` (with the text tower and temperatures).

Letters: B images, M prompts an image, P phrases, N patch tokens, D width, T texts, E shared embedding, L text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum, repeat
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from cloc.models.configuration import ClocConfig, ClocVisionConfig
from cloc.models.deprecated import rename_argument, warn_deprecated
from cloc.models.packing import PackedTexts, Texts, can_pack, encode_packed, pack
from cloc.models.prompter import BoxHead, ImageTokens, Prompter
from cloc.models.prompts import check_kinds, gather_prompts
from cloc.models.roi_align import ImageMap, RoiAlignPrompter
from cloc.models.temperature import inverse_temperature
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

    def to_prompter_tokens(self, encoded: ClocVisionOutput) -> ImageTokens | ImageMap:
        """The image as the Prompter reads it.

        Raises:
            ValueError: this encoder was trained with the CLIP loss alone and has no Prompter.
        """
        if self.prompter is None:
            raise ValueError(
                "this encoder has no Prompter (objective clip): it has image embeddings only; "
                "use an export trained with objective=cloc for regions"
            )
        return self.prompter.prepare_image(encoded.last_hidden_state, self.grid)

    def encode_image(self, pixel_values: torch.Tensor) -> ClocVisionOutput:
        """Encode (B, 3, H, W) normalised images once, for any number of calls that take `encoding`."""
        return self(pixel_values)

    def take_encoding(
        self, asked_by: str, pixel_values: torch.Tensor | None, encoding: ClocVisionOutput | None
    ) -> ClocVisionOutput:
        """The encoding of the images, made if need be; `asked_by` is the caller, for the message.

        Raises:
            ValueError: neither images nor an encoding, or both.
        """
        if (pixel_values is None) == (encoding is None):
            raise ValueError(
                f"{asked_by}: expected images, either as pixel_values or as the encoding that encode_image gives; pass "
                "exactly one"
            )
        return self(pixel_values) if encoding is None else encoding

    def get_region_features(
        self,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        boxes_mask: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        points_mask: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        masks_mask: torch.Tensor | None = None,
        encoding: ClocVisionOutput | None = None,
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
            encoding: of the images, from `encode_image`, instead of `pixel_values`.

        Returns:
            (B, M, E), unit norm where real: boxes, then points, then masks, M of them together. A row does not depend
            on the others.

        Raises:
            ValueError: this encoder was not trained with a kind of these prompts, or a shape does not fit.
        """
        asked = {"box": boxes, "point": points, "mask": masks}
        check_kinds([kind for kind, values in asked.items() if values is not None], self.config.prompter_prompts)
        if boxes is not None and points is None and masks is None:
            image = self.to_prompter_tokens(self.take_encoding("get_region_features", pixel_values, encoding))
            embeds = self.prompter.project(self.prompter(self.prompter.embed_boxes(boxes), image))
            return embeds if boxes_mask is None else embeds * boxes_mask.unsqueeze(-1).to(embeds.dtype)
        prompts = gather_prompts(boxes, boxes_mask, points, points_mask, masks, masks_mask, self.grid)
        image = self.to_prompter_tokens(self.take_encoding("get_region_features", pixel_values, encoding))
        tokens, real = self.prompter.embed_prompts(prompts.kinds, prompts.coords, prompts.patch_coverage, image)
        embeds = self.prompter.project(self.prompter(tokens, image, real))
        return embeds * prompts.real.unsqueeze(-1).to(embeds.dtype)

    @rename_argument("phrases", "text_embeds")
    def ground(
        self,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        encoding: ClocVisionOutput | None = None,
    ) -> torch.Tensor:
        """One box for each phrase prompt.

        Args:
            pixel_values: (B, 3, H, W) normalised.
            text_embeds: text features of the phrases, unit norm: (B, P, E), each image's own, or (P, E), asked of all.
            encoding: of the images, from `encode_image`, instead of `pixel_values`.

        Returns:
            (B, P, 4) xyxy in [0, 1] of the canvas; the processor's `post_process_boxes` turns it into pixels.

        Raises:
            ValueError: this encoder has no Prompter, or RoI-Align instead, which takes boxes only, or no box head.
        """
        if text_embeds is None or not text_embeds.is_floating_point():
            got = "none" if text_embeds is None else f"{tuple(text_embeds.shape)} of {text_embeds.dtype}"
            raise ValueError(
                f"ground: expected text_embeds, (B, P, E) or (P, E) as get_text_features gives them, got {got}; token "
                "ids go to ClocModel.ground as input_ids="
            )
        image = self.to_prompter_tokens(self.take_encoding("ground", pixel_values, encoding))
        if self.box_head is None and isinstance(self.prompter, Prompter):
            raise ValueError(
                "this encoder has no box head (trained with loss.grounding 0): it gives no box for a phrase; use an "
                "export trained with loss.grounding above 0"
            )
        if text_embeds.ndim == 2:
            images = len(pixel_values if encoding is None else encoding.image_embeds)
            text_embeds = repeat(text_embeds, "p e -> b p e", b=images)
        return self.box_head(self.prompter(self.prompter.embed_phrases(text_embeds), image))


def slide_window(side: int, cells: int) -> torch.Tensor:
    """(N, 4) xyxy windows in whole cells, a third of their side apart, the last ones at the border."""
    starts = torch.tensor(sorted({*range(0, cells - side, max(1, side // 3)), cells - side}))
    y, x = (axis.flatten() for axis in torch.meshgrid(starts, starts, indexing="ij"))
    return torch.stack([x, y, x + side, y + side], dim=1)


@dataclass
class ClocOutput(ModelOutput):
    """What a call of `ClocModel` gives, as far as it was asked; the first four fields as transformers' `CLIPOutput`.

    Attributes:
        logits_per_image: (B, T), `logit_scale * image_embeds . text_embeds`, plus the bias that the sigmoid form of the
            loss trains.
        logits_per_text: (T, B), the same transposed.
        text_embeds: (T, E), unit norm.
        image_embeds: (B, E), unit norm.
        region_embeds: (B, M, E) of the prompts, unit norm where real, see `ClocVisionModel.get_region_features`.
        logits_per_region: (B, M, T), with the scale and bias of the region loss.
        encoding: of the images, which `get_region_features`, `ground` and `get_similarity_map` accept.
    """

    logits_per_image: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    region_embeds: torch.Tensor | None = None
    logits_per_region: torch.Tensor | None = None
    encoding: ClocVisionOutput | None = None


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

    def encode_text_groups(self, *groups: Texts) -> tuple[torch.Tensor, ...]:
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
        return F.normalize(self.text_projection(encode_packed(self.text, texts)), dim=-1)

    def get_texts_features(self, *groups: Texts) -> tuple[torch.Tensor, ...]:
        """The name of `encode_text_groups` in version 0.1, deprecated."""
        warn_deprecated("get_texts_features", "encode_text_groups")
        return self.encode_text_groups(*groups)

    def encode_image(self, pixel_values: torch.Tensor) -> ClocVisionOutput:
        """Encode (B, 3, H, W) normalised images once, for any number of calls that take `encoding`."""
        return self.vision(pixel_values)

    def get_region_features(
        self,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        boxes_mask: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        points_mask: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        masks_mask: torch.Tensor | None = None,
        encoding: ClocVisionOutput | None = None,
    ) -> torch.Tensor:
        """See `ClocVisionModel.get_region_features`."""
        return self.vision.get_region_features(
            pixel_values, boxes, boxes_mask, points, points_mask, masks, masks_mask, encoding
        )

    @rename_argument("phrases", "text_embeds")
    def ground(
        self,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoding: ClocVisionOutput | None = None,
    ) -> torch.Tensor:
        """One box for each phrase, given as embedding or as tokens; see `ClocVisionModel.ground`.

        Args:
            pixel_values: (B, 3, H, W) normalised.
            text_embeds: (B, P, E) or (P, E) text features of the phrases, unit norm.
            input_ids: (P, L) tokens of phrases that are asked of every image, instead of `text_embeds`.
            attention_mask: (P, L) 1 where a token is real.
            encoding: of the images, from `encode_image`, instead of `pixel_values`.

        Returns:
            (B, P, 4) xyxy in [0, 1] of the canvas; the processor's `post_process_boxes` turns it into pixels.
        """
        texts = self._embedded("ground", text_embeds, input_ids, attention_mask)
        return self.vision.ground(pixel_values, texts, encoding)

    def get_similarity_map(
        self,
        pixel_values: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoding: ClocVisionOutput | None = None,
        cells: int = 24,
    ) -> torch.Tensor:
        """How near each location of the canvas is to each text: the mean cosine of the box prompts over it.

        Square boxes of a quarter and of half the canvas' side slide over it, a third of their side apart.

        Args:
            pixel_values: (B, 3, H, W) normalised.
            text_embeds: (T, E) text features, unit norm.
            input_ids: (T, L) tokens of the texts, instead of `text_embeds`.
            attention_mask: (T, L) 1 where a token is real.
            encoding: of the images, from `encode_image`, instead of `pixel_values`.
            cells: G, of the map along each side.

        Returns:
            (B, T, G, G) in [-1, 1]; rows are the canvas' rows.
        """
        texts = self._embedded("get_similarity_map", text_embeds, input_ids, attention_mask)
        encoding = self.vision.take_encoding("get_similarity_map", pixel_values, encoding)
        windows = torch.cat([slide_window(max(1, round(cells * share)), cells) for share in (0.25, 0.5)])
        windows = windows.to(texts.device)
        boxes = repeat(windows.to(texts.dtype) / cells, "n xyxy -> b n xyxy", b=len(encoding.image_embeds))
        cosine = self.get_region_features(boxes=boxes, encoding=encoding) @ texts.T
        x0, y0, x1, y1 = windows[:, :, None].unbind(1)
        steps = torch.arange(cells, device=windows.device)
        rows, columns = (steps >= y0) & (steps < y1), (steps >= x0) & (steps < x1)
        covers = einsum(rows.to(cosine.dtype), columns.to(cosine.dtype), "n y, n x -> n y x")
        return einsum(cosine, covers, "b n t, n y x -> b t y x") / covers.sum(dim=0)

    def _embedded(
        self,
        asked_by: str,
        text_embeds: torch.Tensor | None,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        if (input_ids is None) == (text_embeds is None):
            raise ValueError(
                f"{asked_by}: expected texts, either as input_ids (token ids) or as text_embeds (what "
                "get_text_features gives); pass exactly one"
            )
        return self.get_text_features(input_ids, attention_mask) if text_embeds is None else text_embeds

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
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        boxes_mask: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        points_mask: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        masks_mask: torch.Tensor | None = None,
        **training: torch.Tensor,
    ) -> ClocOutput:
        """Compare images and their regions with texts; the arguments are what `ClocProcessor` gives.

        Args:
            pixel_values: (B, 3, H, W) normalised images.
            input_ids: (T, L) tokens of the texts.
            attention_mask: (T, L) 1 where a token is real.
            boxes: (B, Mb, 4) xyxy in [0, 1] of the canvas.
            boxes_mask: (B, Mb) True where the box is real.
            points: (B, Mp, 2) x, y in [0, 1] of the canvas.
            points_mask: (B, Mp), as `boxes_mask`.
            masks: (B, Mm, rows, columns) coverage of the canvas, see `ClocVisionModel.get_region_features`.
            masks_mask: (B, Mm), as `boxes_mask`.
            **training: the other fields of a training batch, deprecated: `ClocForPreTraining` takes them.

        Raises:
            ValueError: neither images nor texts, prompts without images, or prompts that this encoder does not answer.
        """
        if training:
            from cloc.models.pretraining import ClocForPreTraining  # builds on this module

            warn_deprecated("a training batch for ClocModel", "cloc.ClocForPreTraining")
            return ClocForPreTraining.forward(self, pixel_values, boxes=boxes, boxes_mask=boxes_mask, **training)
        if pixel_values is None and input_ids is None:
            raise ValueError("ClocModel: expected pixel_values, input_ids or both, got neither")
        prompts = {
            "boxes": boxes, "boxes_mask": boxes_mask, "points": points, "points_mask": points_mask, "masks": masks,
            "masks_mask": masks_mask,
        }  # fmt: skip
        encoding = images = regions = texts = per_image = per_region = None
        if pixel_values is not None:
            encoding = self.encode_image(pixel_values)
            images = encoding.image_embeds
        if any(value is not None for value in prompts.values()):
            regions = self.get_region_features(encoding=encoding, **prompts)
        if input_ids is not None:
            texts = self.get_text_features(input_ids, attention_mask)
        scales, biases = self.scales(), self.biases()
        if images is not None and texts is not None:
            per_image = _logits(images, texts, scales[0], biases[0])
        if regions is not None and texts is not None:
            per_region = _logits(regions, texts, scales[1], biases[1])
        per_text = None if per_image is None else per_image.T
        return ClocOutput(per_image, per_text, texts, images, regions, per_region, encoding)


def _logits(
    embeds: torch.Tensor, text_embeds: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    logits = scale * embeds @ text_embeds.T
    return logits if bias is None else logits + bias


class ClocForZeroShotImageClassification(ClocModel):
    """`ClocModel` with the order of arguments of transformers' CLIP: the texts first."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> ClocOutput:
        """Compare (B, 3, H, W) normalised images with the texts of (T, L) tokens; see `ClocModel.forward`."""
        return super().forward(pixel_values, input_ids, attention_mask)
