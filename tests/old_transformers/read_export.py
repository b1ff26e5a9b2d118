"""Does transformers 4.37 read an export's tower? Not part of the suite: it needs an environment of its own.

    python -m venv old
    old/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu   # or any torch that runs here
    old/bin/pip install transformers==4.37.2 "numpy<2"
    python tests/old_transformers/read_export.py runs/cloc/export --python old/bin/python

This environment writes what the tower answers on seeded noise; the other one loads `clip_vision_model/` or
`siglip_vision_model/` with no import of ours, and says which keys it missed and how far its answers are away.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CLASSES = {"clip_vision_model": "CLIPVisionModel", "siglip_vision_model": "SiglipVisionModel"}
TOLERANCE = 1e-5
IMAGES = 2


@torch.no_grad()
def answers(tower: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every hidden state and the pooled vector of (B, 3, S, S) images."""
    outputs = tower(pixel_values=pixel_values, output_hidden_states=True)
    found = {f"hidden_states.{row}": state for row, state in enumerate(outputs.hidden_states)}
    found |= {"last_hidden_state": outputs.last_hidden_state, "pooler_output": outputs.pooler_output}
    return {name: value.contiguous().clone() for name, value in found.items()}


def tower_folder(export: Path) -> Path:
    """The tower alone, inside an export.

    Raises:
        ValueError: there is none that transformers 4.37 could know.
    """
    for name in CLASSES:
        if (export / name / "config.json").is_file():
            return export / name
    raise ValueError(f"{export}: expected an export with one of {', '.join(CLASSES)} inside; a Swin has none")


def write_reference(export: Path, file: Path) -> Path:
    """Answers of the export's own tower, as this kit loads it; returns the tower's folder."""
    from transformers import AutoModel

    import cloc  # noqa: F401  (makes the export's classes known)
    from cloc.towers.tower import image_side

    model = AutoModel.from_pretrained(export).eval()
    side = image_side(model.config.vision_config.tower)
    pixels = torch.randn(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    save_file({"pixel_values": pixels, **answers(model.vision.tower, pixels)}, file)
    return tower_folder(export)


def compare(folder: Path, file: Path) -> dict[str, object]:
    """In the other environment: load the folder, answer the same images."""
    import transformers

    kind = getattr(transformers, CLASSES[folder.name])
    tower, loading = kind.from_pretrained(folder, output_loading_info=True)
    reference = load_file(file)
    found = answers(tower.eval(), reference.pop("pixel_values"))
    away = {name: float((found[name] - value).abs().max()) for name, value in reference.items()}
    keys = {name: sorted(loading[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return {"transformers": transformers.__version__, "torch": torch.__version__, **keys, "away": away}


def report(told: dict) -> int:
    """Print it; 0 where all keys fit and all answers agree, 1 where not."""
    worst = max(told["away"].values())
    wrong = {name: told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if told[name]}
    print(f"transformers {told['transformers']}, torch {told['torch']}: {len(told['away'])} outputs, ", end="")
    print(f"at most {worst:.1e} away (allowed {TOLERANCE:.0e}); keys: {wrong or 'all loaded, none left over'}")
    return int(bool(wrong) or not worst <= TOLERANCE)


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests/old_transformers/read_export.py",
        description="Load an export's tower with an older transformers in an environment of its own, and compare.",
    )
    parser.add_argument("export", type=Path, help="a finished export, such as runs/cloc/export")
    parser.add_argument("--python", help="the other environment's python; needs torch, safetensors, transformers")
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)  # set in the other environment
    options = parser.parse_args()
    if options.reference is not None:
        print(json.dumps(compare(options.export, options.reference)))
        return 0
    if options.python is None:
        parser.error("expected --python, such as old/bin/python")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "reference.safetensors"
        try:
            folder = write_reference(options.export, file)
        except (ValueError, OSError) as error:
            parser.error(str(error).splitlines()[0])
        call = [options.python, str(Path(__file__).resolve()), str(folder.resolve()), "--reference", str(file)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"error: {options.python} ended with {done.returncode}:\n{done.stderr[-2000:]}", file=sys.stderr)
        return 1
    return report(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
