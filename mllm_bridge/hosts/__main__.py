"""Which family of hosts takes which tower, as a page: `python -m mllm_bridge.hosts > docs/hosts.md`.

The page says what the descriptions of the families say; the tests put every tower into every family, run it, and fail
where page, descriptions and results differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from transformers import CLIPVisionConfig, SiglipVisionConfig, SwinConfig

from cloc.towers.probe import TowerFacts
from mllm_bridge.hosts import FAMILIES, REFUSING
from mllm_bridge.hosts.family import STOCK, WRAPPER, HostFamily

CONVERTED = "converted"
STYLES = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "swin": SwinConfig}
"""`model.vision.style` of a run, and the config of the tower in its export."""
WORDS = {
    STOCK: "plain transformers",
    CONVERTED: "plain transformers (by name, under the host's own tower class)",
    WRAPPER: "through the wrapper",
}
HEAD = """# Which host takes which tower

Made by `python -m mllm_bridge.hosts`; a test fails where this page is stale. The columns are the towers that this kit
trains (`model.vision.style`) and every other tower of their kind: a ViT with a CLS token, a ViT without, a tower of
several resolutions. *Plain transformers*: the swapped host loads anywhere, with no import of ours. *Through the
wrapper*: `import mllm_bridge` before it is loaded; serving engines do not know that class.

| family | `style: clip` | `style: siglip` | `style: swin` |
|---|---|---|---|
"""


def make_facts(style: str) -> TowerFacts:
    """What a dry forward finds of a tower of this style, in small."""
    clip, swin = style == "clip", style == "swin"
    return TowerFacts(
        model_type=STYLES[style].model_type,
        width=32,
        patch_size=8,
        image_size=48,
        extra_tokens=int(clip),
        hidden_states=4,
        usable=2 if swin else 4,
        parameters=1,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        geometry="",
    )


def find_form(family: HostFamily, style: str) -> str:
    """`stock`, `converted`, `wrapper`, or the reason why a tower of this style does not go in."""
    if family.convert(STYLES[style]().to_dict(), []) is not None:
        return CONVERTED
    return family.takes(make_facts(style))


def make_page() -> str:
    """The whole page."""
    rows, reasons = [], {}
    for name, family in sorted(FAMILIES.items()):
        cells = []
        for style in STYLES:
            found = find_form(family, style)
            if found not in WORDS:
                reasons[name] = found
            cells.append(WORDS.get(found, "refused"))
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    rows += [f"| `{name}` | refused | refused | refused |" for name in sorted(REFUSING)]
    refusals = [f"- `{name}`: {why}." for name, why in sorted({**reasons, **REFUSING}.items())]
    siglip = [
        f"`{name}`"
        for name, family in sorted(FAMILIES.items())
        if find_form(family, "siglip") in (STOCK, CONVERTED) and find_form(family, "clip") not in (STOCK, CONVERTED)
    ]
    clip = [
        f"`{name}`"
        for name, family in sorted(FAMILIES.items())
        if find_form(family, "clip") in (STOCK, CONVERTED) and find_form(family, "siglip") not in (STOCK, CONVERTED)
    ]
    return (
        HEAD
        + "\n".join(rows)
        + "\n\nWhy refused:\n\n"
        + "\n".join(refusals)
        + "\n\n## Which style to train\n\n"
        + f"- `style: siglip` goes in as plain transformers where `clip` does not: {', '.join(siglip) or 'nowhere'}.\n"
        "  These hosts read every token of the last layer, so the wrapper has to cut off a CLS token, or their tower\n"
        "  class is SigLIP's.\n"
        + f"- `style: clip` goes in as plain transformers where `siglip` does not: {', '.join(clip) or 'nowhere'}.\n"
        "  Code that loads a `CLIPVisionModel` (the original LLaVA among it) takes it too.\n"
        + "- Quantised hosts, adapters and the layouts of other code bases are refused with the way on: "
        "`mllm_bridge/hosts/refused.py`.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page."""
    argparse.ArgumentParser(
        prog="python -m mllm_bridge.hosts",
        description="Print which family of hosts takes which of the kit's towers (clip, siglip, swin): as plain "
        "transformers, through the kit's wrapper class, or not, and why. docs/hosts.md is this page; write it again "
        "with `python -m mllm_bridge.hosts > docs/hosts.md` after a family was described or changed.",
    ).parse_args(arguments)
    sys.stdout.write(make_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
