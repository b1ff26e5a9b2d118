"""A contact sheet of any set: photos with their boxes and phrases drawn in, captions below; as a picture and a page."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cloc.data.shards import ShardSet
from cloc.data.tables import TableSet
from cloc.images import decode
from cloc.structures import DataError, Sample

INKS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#e6770b", "#008b8b", "#c2185b", "#6b4f2a")
"""Box and phrase have the same colour; the next region the next one."""

_COLUMNS = 4
_TILE = 320
_GAP = 12
_TEXT = 12
_LINES = 4
_BOXES = 12


@dataclass(frozen=True)
class Shown:
    """A sample with its decoded photo (RGB), or why it could not be decoded.

    Attributes:
        sample: as it was read.
        image: the photo, None where it could not be decoded.
        reason: why not, else empty.
    """

    sample: Sample
    image: Image.Image | None
    reason: str = ""


def sample_evenly(samples: ShardSet | TableSet, count: int) -> Iterator[Shown]:
    """Samples from all over a set, evenly and always the same ones; those that cannot be read are passed over."""
    total = samples.num_samples
    firsts = [sum(samples.counts[:shard]) for shard in range(len(samples.counts))]
    for number in sorted({i * total // count for i in range(count)} if total else ()):
        shard = max(i for i, first in enumerate(firsts) if first <= number and samples.counts[i])
        try:
            sample = samples.read_sample(shard, number - firsts[shard])
        except DataError:
            continue  # counted where every sample is examined
        try:
            yield Shown(sample, decode(sample.image, (sample.width, sample.height)))
        except ValueError as error:
            yield Shown(sample, None, str(error))


def draw_contact_sheet(shown: Sequence[Shown]) -> Image.Image:
    """An RGB picture of the samples, four in a row.

    Raises:
        ValueError: there is none to show.
    """
    if not shown:
        raise ValueError("contact sheet: expected at least one sample that can be read, got none")
    font = ImageFont.load_default(_TEXT)
    tiles = [_draw_tile(one, font) for one in shown]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].width + _GAP, tiles[0].height + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP + i % columns * width, _GAP + i // columns * height))
    return sheet


def _draw_tile(one: Shown, font: ImageFont.FreeTypeFont) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE + (_LINES + 1) * (_TEXT + 3)), "white")
    pen = ImageDraw.Draw(tile)
    if one.image is None:
        pen.multiline_text((4, 4), "\n".join(textwrap.wrap(one.reason, 46)[:12]), fill="#b00000", font=font)
    else:
        factor = _TILE / max(one.image.size)
        size = tuple(max(1, round(side * factor)) for side in one.image.size)
        tile.paste(one.image.resize(size, Image.Resampling.BICUBIC))
        _draw_regions(pen, one.sample, factor, size, font)
    more = len(one.sample.regions) - _BOXES
    head = one.sample.key[-30:] + (f" (and {more} more regions)" if more > 0 else "")
    lines = [head, *textwrap.wrap(one.sample.caption, 52)[:_LINES]]
    for row, line in enumerate(lines):
        ink = "#808080" if row == 0 else "black"
        pen.text((0, _TILE + 1 + row * (_TEXT + 3)), line, fill=ink, font=font)
    return tile


def _draw_regions(
    pen: ImageDraw.ImageDraw, sample: Sample, factor: float, size: tuple[int, ...], font: ImageFont.FreeTypeFont
) -> None:
    """The largest boxes, then phrases over them; a phrase stands above its box, at the upper border inside it."""
    largest = sorted(sample.regions, key=lambda r: (r.box[2] - r.box[0]) * (r.box[3] - r.box[1]), reverse=True)
    drawn = [(INKS[i % len(INKS)], region) for i, region in enumerate(largest[:_BOXES])]
    boxes = [[round(value * factor) for value in region.box] for _, region in drawn]
    for (ink, _), (x0, y0, x1, y1) in zip(drawn, boxes, strict=True):
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=ink, width=2)
    for (ink, region), (x0, y0, _, _) in zip(drawn, boxes, strict=True):
        phrase = textwrap.shorten(region.phrase, 40, placeholder="...")
        width = pen.textlength(phrase, font)
        x = max(min(x0, size[0] - width - 3), 0)
        y = y0 - _TEXT - 3 if y0 >= _TEXT + 3 else y0
        pen.rectangle((x, y, x + width + 3, y + _TEXT + 2), fill="white")
        pen.text((x + 1, y), phrase, fill=ink, font=font)


_SIDE = 480
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em; color: #222; }
pre { background: #f5f5f2; padding: 1em; overflow-x: auto; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1.5em; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; background: #eee; }
rect { fill: transparent; stroke-width: 2; vector-effect: non-scaling-stroke; } rect:hover { fill: #ffffff66; }
figcaption p { margin: .3em 0; } ul { margin: .2em 0; padding-left: 1.2em; } .key { color: #888; font-size: 12px; }
"""


def write_page(file: Path, title: str, report: str, shown: Sequence[Shown]) -> None:
    """Write the page.

    Args:
        file: to write, ending in .html.
        title: of the page.
        report: the report as plain text.
        shown: samples to draw; every region of theirs is drawn and listed.
    """
    figures = "\n".join(_make_figure(one) for one in shown)
    file.write_text(
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>\n"
        f"<pre>{html.escape(report)}</pre>\n<main>\n{figures}\n</main></body></html>\n",
        encoding="utf-8",
    )


def _make_figure(one: Shown) -> str:
    sample, regions = one.sample, enumerate(one.sample.regions)
    listed = "".join(f'<li style="color:{INKS[i % len(INKS)]}">{html.escape(r.phrase)}</li>' for i, r in regions)
    picture = _make_picture(sample, one.image) if one.image is not None else f"<p>{html.escape(one.reason)}</p>"
    words = f'<p class="key">{html.escape(sample.key)}</p><p>{html.escape(sample.caption)}</p><ul>{listed}</ul>'
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def _make_picture(sample: Sample, image: Image.Image) -> str:
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
