"""The check as one HTML page that needs nothing else: what was found, and photos with their boxes."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cloc.check.contact_sheet import INKS, Shown
from cloc.structures import Sample

_SIDE = 480
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em; color: #222; }
pre { background: #f5f5f2; padding: 1em; overflow-x: auto; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1.5em; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; background: #eee; }
rect { fill: transparent; stroke-width: 2; vector-effect: non-scaling-stroke; } rect:hover { fill: #ffffff66; }
figcaption p { margin: .3em 0; } ul { margin: .2em 0; padding-left: 1.2em; } .key { color: #888; font-size: 12px; }
"""


def write_page(file: Path, title: str, told: str, shown: Sequence[Shown]) -> None:
    """Write the page.

    Args:
        file: to write, ending in .html.
        title: of the page.
        told: the report as plain text.
        shown: samples to draw; every region of theirs is drawn and listed.
    """
    figures = "\n".join(_figure(one) for one in shown)
    file.write_text(
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>\n"
        f"<pre>{html.escape(told)}</pre>\n<main>\n{figures}\n</main></body></html>\n",
        encoding="utf-8",
    )


def _figure(one: Shown) -> str:
    sample, regions = one.sample, enumerate(one.sample.regions)
    listed = "".join(f'<li style="color:{INKS[i % len(INKS)]}">{html.escape(r.phrase)}</li>' for i, r in regions)
    picture = _picture(sample, one.image) if one.image is not None else f"<p>{html.escape(one.reason)}</p>"
    words = f'<p class="key">{html.escape(sample.key)}</p><p>{html.escape(sample.caption)}</p><ul>{listed}</ul>'
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def _picture(sample: Sample, image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    boxes = "".join(
        f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" stroke="{INKS[i % len(INKS)]}">'
        f"<title>{html.escape(region.phrase)}</title></rect>"
        for i, region in enumerate(sample.regions)
        for x0, y0, x1, y1 in [region.box]
    )
    return (
        f'<svg viewBox="0 0 {sample.width} {sample.height}"><image width="{sample.width}" height="{sample.height}" '
        f'href="data:image/jpeg;base64,{data}"/>{boxes}</svg>'
    )
