"""The Prompter (CLOC section 3.3, Table A): image tokens and a prompt in, one vector out.

A one-layer, single-head transformer encoder over [prompt tokens; image tokens], then an average pool. Image tokens do
not look at prompts and prompts do not look at each other, so keys and values of the image are computed once and shared
by every prompt of that image: O(M N) for M prompts and N tokens.

Beyond the paper, points and masks are prompts too: a point is one corner with a type of its own, a mask is the corners
of its extent and the mean of the image tokens under it. All kinds stand in one batch, padded to the longest.

Letters: B images, M prompts an image, P tokens a prompt (2 for a box, 1 for a phrase or point, 3 for a mask; of a mixed
batch 3, or 2 without masks), N image tokens, D width, E shared embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cloc.structures import PROMPT_KINDS

BOX, POINT, MASK = (PROMPT_KINDS.index(kind) for kind in ("box", "point", "mask"))


def encode_points(points: torch.Tensor, width: int, max_cycles: float) -> torch.Tensor:
    """Fixed sinusoids of points: half of the width for x, half for y, sine and cosine at geometric frequencies.

    Args:
        points: (..., 2) x, y in [0, 1] of the canvas.
        width: D, divisible by 4.
        max_cycles: highest frequency in cycles over the canvas; the lowest is half a cycle.

    Returns:
        (..., D) in [-1, 1], in float32.
    """
    steps = width // 4
    ladder = torch.arange(steps, device=points.device, dtype=torch.float32) / max(steps - 1, 1)
    frequencies = math.pi * (2.0 * max_cycles) ** ladder
    angles = points.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def make_patch_boxes(grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(N, 4) xyxy in [0, 1] of the canvas: the corners of each patch of a rows x columns grid, row by row."""
    rows, columns = grid
    top = torch.arange(rows, device=device, dtype=torch.float32) / rows
    left = torch.arange(columns, device=device, dtype=torch.float32) / columns
    y, x = torch.meshgrid(top, left, indexing="ij")
    return torch.stack([x, y, x + 1 / columns, y + 1 / rows], dim=-1).flatten(0, 1)


class ImageTokens(NamedTuple):
    """What the Prompter keeps of an image; computed once and shared by all prompts.

    Attributes:
        tokens: (B, N, D) patch tokens after the input norm, with their position code.
        normed: (B, N, D) the same as attention reads them.
        keys, values: (B, N, D); None in training, where few prompts are asked of an image: the prompts then go through
            both projections instead of the image, which is the same product in another order.
    """

    tokens: torch.Tensor
    normed: torch.Tensor
    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None


class Prompter(nn.Module):
    """Turns box, point, mask or phrase prompts into vectors of the image.

    Args:
        width: D, the tower's width.
        embed_dim: E, width of the text embedding and of the result.
        mlp_ratio: hidden width of the MLP over D.
        pool: `prompt` averages the prompt's own output tokens; `all` averages prompt and image tokens (the ablation
            twin: every prompt then pays for the whole sequence).
        token_positions: add the code of each patch's corners to the image tokens.
        max_cycles: highest frequency of the box code.
        prompts: kinds beside phrases that it answers; what `point` and `mask` need exists only where they are named.
    """

    def __init__(
        self,
        width: int,
        embed_dim: int,
        mlp_ratio: int = 4,
        pool: str = "prompt",
        token_positions: bool = True,
        max_cycles: float = 16.0,
        prompts: Sequence[str] = ("box",),
    ) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"Prompter: expected a width divisible by 4 (sine and cosine of x and y), got {width}")
        self.pool, self.token_positions, self.max_cycles = pool, token_positions, max_cycles
        self.input_norm = nn.LayerNorm(width)
        self.corner_type = nn.Parameter(torch.zeros(2, width))
        self.point_type = nn.Parameter(torch.zeros(width)) if "point" in prompts else None
        self.mask_type = nn.Parameter(torch.zeros(width)) if "mask" in prompts else None
        self.phrase_in = nn.Linear(embed_dim, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.output_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)

    def embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        """(..., 4) xyxy in [0, 1] of the canvas to (..., 2, D): one token for each corner."""
        corners = boxes.unflatten(-1, (2, 2))
        code = encode_points(corners, self.corner_type.shape[1], self.max_cycles)
        return code.to(self.corner_type.dtype) + self.corner_type

    def embed_phrases(self, phrases: torch.Tensor) -> torch.Tensor:
        """(..., E) unit-norm text embeddings to (..., 1, D)."""
        # A unit vector has entries of about 1/sqrt(E); at that size the layer's bias would drown it.
        return self.phrase_in(phrases * phrases.shape[-1] ** 0.5).unsqueeze(-2)

    def embed_prompts(
        self, kinds: torch.Tensor, coords: torch.Tensor, patch_coverage: torch.Tensor, image: ImageTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes, points and masks in one batch.

        Args:
            kinds: (B, M) rows of `PROMPT_KINDS`.
            coords: (B, M, 4) in [0, 1] of the canvas: xyxy of a box or of a mask's extent; x, y, x, y of a point.
            patch_coverage: (B, M, rows, columns) share of each patch that a mask covers; zeros for the other kinds.
            image: from `prepare_image`.

        Returns:
            (B, M, P, D) prompts and (B, M, P) bool, True where a prompt has a token.
        """
        corners = self.embed_boxes(coords)
        first, pointed = corners[..., :1, :], kinds == POINT
        if self.point_type is not None:
            code = encode_points(coords[..., :2], corners.shape[-1], self.max_cycles).to(corners.dtype)
            first = torch.where(pointed[..., None, None], (code + self.point_type).unsqueeze(-2), first)
        tokens, real = [first, corners[..., 1:, :]], [torch.ones_like(pointed), ~pointed]
        if self.mask_type is not None:
            weights = patch_coverage.flatten(2).to(image.tokens.dtype)
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
            under = torch.einsum("bmn,bnd->bmd", weights, image.tokens) + self.mask_type
            tokens.append(under.unsqueeze(-2).to(corners.dtype))
            real.append(kinds == MASK)
        return torch.cat(tokens, dim=-2), torch.stack(real, dim=-1)

    def prepare_image(self, tokens: torch.Tensor, grid: tuple[int, int]) -> ImageTokens:
        """Read (B, N, D) patch tokens, taken before the tower's final norm, of a rows x columns grid."""
        tokens = self.input_norm(tokens)
        if self.token_positions:
            tokens = tokens + self.embed_boxes(make_patch_boxes(grid, tokens.device)).sum(dim=-2)
        normed = self.norm1(tokens)
        if self.training:
            return ImageTokens(tokens, normed)
        return ImageTokens(tokens, normed, self.k_proj(normed), self.v_proj(normed))

    def forward(self, prompts: torch.Tensor, image: ImageTokens, real: torch.Tensor | None = None) -> torch.Tensor:
        """Pooled vectors, before the projection.

        Args:
            prompts: (B, M, P, D) from `embed_boxes`, `phrase_tokens` or `embed_prompts`.
            image: from `prepare_image`.
            real: (B, M, P) bool where prompts have fewer tokens than P; the others are neither read nor pooled.

        Returns:
            (B, M, D).
        """
        if self.pool == "all":
            return self.forward_plain(prompts, image, real)
        normed = self.norm1(prompts)
        query = self.q_proj(normed) * prompts.shape[-1] ** -0.5
        at_image = self._at_image(query, image)
        at_itself = torch.einsum("bmpd,bmqd->bmpq", query, self.k_proj(normed))
        if real is not None:
            at_itself = at_itself.masked_fill(~real.unsqueeze(2), -torch.inf)
        scores = torch.cat([at_image, at_itself], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
        image_weights, own_weights = weights.split([image.tokens.shape[1], prompts.shape[2]], dim=-1)
        mixed = self._from_image(image_weights, image)
        mixed = mixed + torch.einsum("bmpq,bmqd->bmpd", own_weights, self.v_proj(normed))
        tokens = prompts + self.out_proj(mixed)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return self.output_norm(average_tokens(tokens, real))

    def _at_image(self, query: torch.Tensor, image: ImageTokens) -> torch.Tensor:
        """(B, M, P, N) scores of (B, M, P, D) queries with the image's keys."""
        if image.keys is not None:
            return torch.einsum("bmpd,bnd->bmpn", query, image.keys)
        through = torch.einsum("bmpd,bnd->bmpn", query @ self.k_proj.weight, image.normed)
        return through + (query * self.k_proj.bias).sum(dim=-1, keepdim=True)

    def _from_image(self, weights: torch.Tensor, image: ImageTokens) -> torch.Tensor:
        """(B, M, P, D) sums of the image's values by (B, M, P, N) weights, which need not add up to one."""
        if image.values is not None:
            return torch.einsum("bmpn,bnd->bmpd", weights, image.values)
        mixed = torch.einsum("bmpn,bnd->bmpd", weights, image.normed)
        return F.linear(mixed, self.v_proj.weight) + weights.sum(dim=-1, keepdim=True) * self.v_proj.bias

    def forward_plain(
        self, prompts: torch.Tensor, image: ImageTokens, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The definition: the whole sequence [prompt; image] through the layer, once for each prompt."""
        images, num_prompts, own, _ = prompts.shape
        sequence = torch.cat([prompts, image.tokens.unsqueeze(1).expand(-1, num_prompts, -1, -1)], dim=2)
        there = None
        if real is not None:
            there = torch.cat([real, real.new_ones(images, num_prompts, sequence.shape[2] - own)], dim=2)
        normed = self.norm1(sequence)
        # Every prompt is an item of its own: torch 2.11 ends the process where no prompts stand as heads.
        mixed = F.scaled_dot_product_attention(
            self.q_proj(normed).flatten(0, 1),
            self.k_proj(normed).flatten(0, 1),
            self.v_proj(normed).flatten(0, 1),
            attn_mask=None if there is None else there.flatten(0, 1).unsqueeze(1),
        ).view_as(sequence)
        sequence = sequence + self.out_proj(mixed)
        sequence = sequence + self.mlp(self.norm2(sequence))
        if self.pool == "all":
            return self.output_norm(average_tokens(sequence, there))
        return self.output_norm(average_tokens(sequence[:, :, :own], real))

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., D) pooled vectors to (..., E), unit norm."""
        return F.normalize(self.projection(pooled), dim=-1)


def average_tokens(tokens: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """(..., P, D) to (..., D): the mean of all tokens, or of those where `real` (..., P) is True."""
    if real is None:
        return tokens.mean(dim=-2)
    weights = real.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(dim=-2) / weights.sum(dim=-2)


class BoxHead(nn.Module):
    """Two-layer MLP with GELU (CLOC Table A): pooled vector to xyxy in [0, 1] of the canvas."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(..., D) to (..., 4)."""
        return self.layers(pooled).sigmoid()
