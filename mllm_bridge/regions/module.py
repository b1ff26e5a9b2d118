"""The region module: an export's Prompter and a projector to the language model's width.

Letters: I images, N patch tokens, D tower width, R regions, W width of the language model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

import cloc
from cloc.export import read_card
from cloc.files import write_json
from cloc.model_bounds import check_sizes
from cloc.model_folders import refusing_unreadable
from mllm_bridge.weights.folders import read_json

FOLDER, CONFIG, WEIGHTS = "regions", "config.json", "model.safetensors"


class RegionModule(nn.Module):
    """Regions of images to embeddings in the language model's own space.

    The Prompter reads the layer that it was trained on, the tower's last one before the final norm, whatever layer the
    host itself reads.

    Args:
        vision: config of the image side of an export, which has a Prompter.
        width: W, of the language model.
        rms: size of an entry of the language model's token embeddings, which a fresh projector starts at.
    """

    def __init__(self, vision: cloc.ClocVisionConfig, width: int, rms: float = 1.0) -> None:
        super().__init__()
        if not vision.has_prompter:
            raise ValueError("regions: this export has no Prompter (objective clip); use one of objective cloc")
        if vision.tower.model_type not in ("clip_vision_model", "siglip_vision_model"):
            raise ValueError(
                f"regions: expected an export with a CLIP or SigLIP tower, got {vision.tower.model_type!r}; other "
                "towers stand in a host behind a wrapper that does not show the Prompter's layer"
            )
        self.vision, self.width, self.rms = vision, width, rms
        with torch.device("meta"):  # only its shape is wanted; the tower of this copy is never made
            prompter = cloc.ClocVisionModel(vision).prompter
        self.prompter = prompter.to_empty(device="cpu")
        inner = vision.tower.hidden_size
        self.projector = nn.Sequential(nn.Linear(inner, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
        with torch.no_grad():
            self.projector[-1].weight.fill_(rms)

    @property
    def extra_tokens(self) -> int:
        """Tokens before the patches (CLS)."""
        return 1 if self.vision.tower.model_type == "clip_vision_model" else 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        side = self.vision.tower.image_size // self.vision.tower.patch_size
        return side, side

    def forward(self, last_layer: torch.Tensor, boxes: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
        """Region embeddings, all regions of an image in one call of the Prompter.

        Args:
            last_layer: (I, extra + N, D) the tower's last hidden state before its final norm.
            boxes: (R, 4) xyxy in [0, 1] of the canvas.
            image_of: (R,) the image of each region.

        Returns:
            (R, W).
        """
        image = self._image(last_layer)
        counts = torch.bincount(image_of, minlength=len(last_layer))
        order = image_of.argsort(stable=True)
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[image_of[order]]
        slot = torch.empty_like(order).scatter_(0, order, place)
        padded = boxes.new_zeros(len(last_layer), max(int(counts.max()), 1), 4)
        padded[image_of, slot] = boxes
        pooled = self.prompter(self.prompter.embed_boxes(padded), image)
        return self.projector(pooled[image_of, slot])

    def forward_plain(self, last_layer: torch.Tensor, boxes: torch.Tensor, image_of: torch.Tensor) -> torch.Tensor:
        """The definition: one region after the other."""
        found = []
        for box, number in zip(boxes, image_of.tolist(), strict=True):
            image = self._image(last_layer[number : number + 1])
            found.append(self.projector(self.prompter(self.prompter.embed_boxes(box.view(1, 1, 4)), image))[0, 0])
        return torch.stack(found) if found else boxes.new_zeros(0, self.width)

    def _image(self, last_layer: torch.Tensor):
        tokens = last_layer[:, self.extra_tokens :].to(self.prompter.corner_type.dtype)
        return self.prompter.prepare_image(tokens, self.grid)

    def save(self, folder: Path) -> None:
        """Write `regions/` into a host's folder."""
        own = folder / FOLDER
        own.mkdir(parents=True, exist_ok=True)
        content = {"schema": 1, "width": self.width, "rms": self.rms, "vision_config": self.vision.to_dict()}
        write_json(own / CONFIG, content)
        weights = {name: value.detach().float().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, own / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> RegionModule:
        """Read `regions/` of a host's folder, every weight accounted for.

        Raises:
            ValueError: there is none, or its weights are not those of its config.
        """
        own = Path(folder) / FOLDER
        if not (own / CONFIG).is_file() or not (own / WEIGHTS).is_file():
            raise ValueError(
                f"{folder}: no region module ({FOLDER}/{CONFIG} and {WEIGHTS}); train one with regions.export"
            )
        content = read_json(own / CONFIG)
        if content.get("schema") != 1:
            raise ValueError(f"{own / CONFIG}: expected schema 1, got {content.get('schema')!r}")
        vision, width, rms = (content.get(name) for name in ("vision_config", "width", "rms"))
        numbers = isinstance(rms, int | float) and type(width) is int and 0 < width
        if not isinstance(vision, dict) or not numbers:
            raise ValueError(
                f"{own / CONFIG}: expected the object vision_config and the numbers width and rms, got "
                f"{vision!r:.40}, {width!r:.40} and {rms!r:.40}; copy the folder again"
            )
        check_sizes(content, str(own))
        with refusing_unreadable(own):
            module = cls(cloc.ClocVisionConfig(**vision), width, rms)
            weights = load_file(own / WEIGHTS)
        wrong = sorted(set(weights) ^ set(module.state_dict()))
        if wrong:
            raise ValueError(f"{own / WEIGHTS}: {len(wrong)} weights are missing or left over, the first is {wrong[0]}")
        with refusing_unreadable(own):
            module.load_state_dict(weights)
        return module


def make_region_module(export: Path, width: int, rms: float, seed: int) -> RegionModule:
    """A region module with an export's trained Prompter and a fresh projector drawn from `seed`.

    Raises:
        ValueError: the folder is no export with a Prompter, or cannot be read.
    """
    read_card(export)
    with refusing_unreadable(export):
        model = AutoModel.from_pretrained(export, local_files_only=True, trust_remote_code=False, use_safetensors=True)
    if not isinstance(model, cloc.ClocModel):
        raise ValueError(f"regions.export: {export}: expected an export of this kit, got {type(model).__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = RegionModule(model.config.vision_config, width, rms)
    module.prompter.load_state_dict(model.vision.prompter.state_dict())
    return module
