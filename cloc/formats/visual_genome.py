"""Visual Genome: region descriptions or objects, with the sizes and COCO numbers of its photos.

Layout (visualgenome.org, v1.4): `image_data.json` `[{image_id, width, height, url, coco_id, flickr_id}]`;
`region_descriptions.json` `[{id, regions: [{region_id, image_id, phrase, x, y, width, height}]}]`; `objects.json`
`[{image_id, objects: [{object_id, names, synsets, x, y, w, h}]}]`. Boxes are pixels. The photos lie in `VG_100K` and
`VG_100K_2`, as the end of each `url` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.files import is_text
from cloc.formats.annotated import check_box
from cloc.formats.annotated_stream import Grouped
from cloc.formats.frames import FrameWatch
from cloc.formats.json_stream import stream_json
from cloc.formats.layouts import describe_other_layout
from cloc.formats.numbers import parse_four, parse_whole
from cloc.formats.rows import keep_kind
from cloc.structures import DataError, Region

FILES = {"regions": "region_descriptions.json", "objects": "objects.json"}


@dataclass(frozen=True)
class GenomePhoto:
    """One photo with its regions.

    Attributes:
        image_id: Visual Genome's number.
        width, height: pixels.
        names: where the photo may lie, the likeliest first.
        coco_id: its number in COCO, None where it is in none of COCO's sets.
        regions: cut at the border; `region_id` or `object_id` in their extras.
    """

    image_id: int
    width: int
    height: int
    names: tuple[str, ...]
    coco_id: int | None
    regions: tuple[Region, ...]


class VisualGenome:
    """The photos with their regions, by number. The files are read once, in flat memory.

    Attributes:
        images: how many photos there are.
        dropped: what was left out so far, by reason.
    """

    def __init__(self, root: Path, what: str) -> None:
        """Read `image_data.json` and the file of regions or objects.

        Args:
            root: folder of both.
            what: `regions` or `objects`.

        Raises:
            ValueError: a file is missing or is not what it should be.
        """
        self._grouped, self.dropped = Grouped(), Counter[str]()
        self._what = what
        images, file = root / "image_data.json", root / FILES[what]
        for _, entry in stream_json(images, "Visual Genome's image data", self.dropped):
            image = _read_image(entry)
            if image is None:
                self.dropped["bad_image_data"] += 1
            elif not self._grouped.put_image(image["image_id"], image):
                self.dropped["duplicate_image_id"] += 1
        self._watch = FrameWatch(file)
        for _, entry in stream_json(file, f"Visual Genome's {what}", self.dropped):
            listed = entry.get(what) if isinstance(entry, Mapping) else None
            if not isinstance(listed, list):
                self.dropped["bad_row"] += 1
                continue
            self._grouped.put("row", entry.get("image_id", entry.get("id")), {"listed": listed})
        self.dropped["row_of_unknown_image"] += self._grouped.unknown("row")
        self.images = self._grouped.images
        if not self.images:
            raise ValueError(
                f"{images}: expected Visual Genome's image data (a list of image_id, width, height), found no image in "
                f"it{describe_other_layout(images)}"
            )

    def __iter__(self) -> Iterator[GenomePhoto]:
        for entry, found in self._grouped:
            listed = [one for _, row in found.get("row", ()) for one in row["listed"]]
            size = (entry["width"], entry["height"])
            regions = tuple(self._regions(listed, *size))
            number = entry["image_id"]
            tail = "/".join(entry["url"].split("/")[-2:])
            paths = (tail, f"VG_100K/{number}.jpg", f"VG_100K_2/{number}.jpg", f"{number}.jpg")
            names = tuple(dict.fromkeys(path for path in paths if path))
            yield GenomePhoto(number, *size, names, entry["coco_id"], regions)
        self._watch.refuse(self.dropped)

    def _regions(self, listed: list[Any], width: int, height: int) -> Iterator[Region]:
        number = "region_id" if self._what == "regions" else "object_id"
        for one in keep_kind(dict, listed, self.dropped):
            sides = ("width", "height") if self._what == "regions" else ("w", "h")
            numbers = parse_four([one.get(name) for name in ("x", "y", *sides)])
            if numbers is not None:
                self._watch.see(numbers, width, height)
            box, reason = check_box(numbers, width, height)
            if reason is not None:
                self.dropped[reason] += 1
            if box is None:
                continue
            names = one.get("names")
            phrase = (
                one.get("phrase") if self._what == "regions" else names[0] if isinstance(names, list) and names else ""
            )
            phrase = " ".join(phrase.split()) if is_text(phrase) else ""
            extras = {number: one[number]} if parse_whole(one.get(number)) is not None else {}
            if isinstance(one.get("synsets"), list):
                extras["synsets"] = [name for name in one["synsets"] if is_text(name)]
            try:
                yield Region(box, phrase, extras=extras)
            except DataError as error:
                self.dropped[error.reason] += 1


def _read_image(entry: object) -> dict[str, Any] | None:
    """What is used of an entry of `image_data.json`, None where it is none."""
    if not isinstance(entry, Mapping):
        return None
    number, width, height = (parse_whole(entry.get(name)) for name in ("image_id", "width", "height"))
    if number is None or width is None or height is None or min(number, width, height) < 1:
        return None
    url = entry["url"] if is_text(entry.get("url")) else ""
    return {
        "image_id": number, "width": width, "height": height, "url": url, "coco_id": parse_whole(entry.get("coco_id"))
    }  # fmt: skip
