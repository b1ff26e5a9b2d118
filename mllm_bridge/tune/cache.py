"""A frozen tower that looks at each image once: for small hosts and many passes over the same images.

Keys are the pixels themselves, so nothing about files or batches has to be known, and equal pixels give equal features.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


class CachedTower(nn.Module):
    """Stands in a host where its tower stood.

    Args:
        tower: a frozen transformers vision model.

    Attributes:
        forwards: images that the tower has really seen.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.config = tower, tower.config
        self.forwards = 0
        self._known: dict[tuple[bytes, str], tuple[tuple[torch.Tensor | None, ...], torch.Tensor]] = {}

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, **asked: Any) -> BaseModelOutputWithPooling:
        """(I, 3, H, W) to the tower's hidden states (those that were asked for) and last hidden state."""
        asked["return_dict"] = True
        layers = repr(asked.get("output_hidden_states"))
        keys = [(hashlib.blake2b(image.cpu().numpy().tobytes()).digest(), layers) for image in pixel_values]
        missing = [index for index, key in enumerate(keys) if key not in self._known]
        if missing:
            self.forwards += len(missing)
            output = self.tower(pixel_values[missing], **asked)
            for row, index in enumerate(missing):
                states = tuple(None if s is None else s[row].clone() for s in output.hidden_states or ())
                self._known[keys[index]] = (states, output.last_hidden_state[row].clone())
        found = [self._known[key] for key in keys]
        states = tuple(
            None if rows[0] is None else torch.stack(rows) for rows in zip(*(one[0] for one in found), strict=True)
        )
        last = torch.stack([one[1] for one in found])
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=states or None)
