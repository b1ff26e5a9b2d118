"""How a host writes a place. One declared convention a folder, one writer, one strict parser.

Hosts differ in scale (pixels, 0 to 1, 0 to 1000, bins) and frame (the image, or the square that it is padded to). A
parser that guesses among them gives plausible wrong boxes; here the convention lies in the folder, and an answer that
does not keep to it is a failure with a reason.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from cloc.files import read_json
from cloc.images import Placement
from cloc.structures import Box

FILE = "places.json"
"""Where a host's convention lies in its folder."""
Scale = Literal["pixels", "unit", "thousand", "bins"]
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class BoxTextFormat:
    """A convention for boxes in text, always `[x0, y0, x1, y1]`.

    Attributes:
        scale: `pixels` of the original image; `unit`, fractions with `digits` decimals (LLaVA, Shikra); `thousand`,
            whole numbers 0 to 1000 (Ferret); `bins`, the nearest of `bins` equally spaced lines, counted from 0, the
            first and the last at the borders.
        padded: numbers refer to the square that the image is padded to at its centre, not to the image.
        digits: decimals of `unit`.
        bins: of the scale `bins`.
    """

    scale: Scale = "unit"
    padded: bool = True
    digits: int = 3
    bins: int = 32

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise ValueError(f"places: expected a scale of {', '.join(get_args(Scale))}, got {self.scale!r}")
        if self.scale == "pixels" and self.padded:
            raise ValueError("places: pixels refer to the original image; set padded to false")
        if not 1 <= self.digits <= 15 or not 2 <= self.bins <= 100_000:
            raise ValueError(
                f"places: expected digits from 1 to 15 and bins from 2 to 100,000, got {self.digits} and {self.bins}"
            )

    @property
    def name(self) -> str:
        """A short name for protocol ids, as `unit3-padded`."""
        size = {"unit": str(self.digits), "bins": str(self.bins)}.get(self.scale, "")
        return f"{self.scale}{size}-{'padded' if self.padded else 'image'}"

    def write(self, box_xyxy: Sequence[float], size: tuple[int, int]) -> str:
        """A box as text.

        Args:
            box_xyxy: pixels of the original image.
            size: (width, height) of the original image in pixels.
        """
        shares = self._shares(box_xyxy, size)
        if self.scale == "unit":
            return "[" + ", ".join(f"{share:.{self.digits}f}" for share in shares) + "]"
        if self.scale == "bins":
            values = [round(share * (self.bins - 1)) for share in shares]
        else:
            values = [round(share * (1000 if self.scale == "thousand" else 1)) for share in shares]
        return "[" + ", ".join(map(str, values)) + "]"

    def _shares(self, box_xyxy: Sequence[float], size: tuple[int, int]) -> list[float]:
        """The box in the frame: [0, 1], or pixels where the scale is pixels."""
        if self.scale == "pixels":
            return [float(value) for value in box_xyxy]
        if self.padded:
            return [float(value) for value in Placement(*size).to_canvas([box_xyxy])[0]]
        return [value / side for value, side in zip(box_xyxy, (*size, *size), strict=True)]

    def read(self, text: str, size: tuple[int, int]) -> Reading:
        """Every box of an answer, in order.

        Args:
            text: the answer.
            size: (width, height) of the original image in pixels.

        Returns:
            Boxes in xyxy pixels of the original image, cut at its border, and what could not be read, by reason:
            `no_box` (no brackets at all), `not_four_numbers`, `not_whole` (decimals where whole numbers are due),
            `out_of_range`, `empty_box` (no width or height, or nothing of it inside the image).
        """
        boxes, failures = list[Box](), Counter[str]()
        groups = _GROUP.findall(text)
        if not groups:
            failures["no_box"] += 1
        for group in groups:
            box, reason = self._one(group, size)
            if box is None:
                failures[reason] += 1
            else:
                boxes.append(box)
        return Reading(tuple(boxes), failures)

    def _one(self, group: str, size: tuple[int, int]) -> tuple[Box | None, str]:
        parts = [part.strip() for part in group.split(",")]
        if len(parts) != 4 or not all(_NUMBER.fullmatch(part) for part in parts):
            return None, "not_four_numbers"
        if self.scale in ("thousand", "bins") and any("." in part for part in parts):
            return None, "not_whole"
        values = [float(part) for part in parts]
        tops = {"pixels": (*size, *size), "unit": (1,) * 4, "thousand": (1000,) * 4, "bins": (self.bins - 1,) * 4}
        if any(not 0 <= value <= top for value, top in zip(values, tops[self.scale], strict=True)):
            return None, "out_of_range"
        box = self._pixels(values, size)
        if box[2] <= box[0] or box[3] <= box[1]:
            return None, "empty_box"
        return box, ""

    def _pixels(self, values: list[float], size: tuple[int, int]) -> Box:
        if self.scale == "pixels":
            return tuple(values)  # type: ignore[return-value]
        whole = {"unit": 1, "thousand": 1000, "bins": self.bins - 1}[self.scale]
        shares = [value / whole for value in values]
        if self.padded:
            return tuple(float(value) for value in Placement(*size).to_pixels([shares])[0])  # type: ignore[return-value]
        return tuple(share * side for share, side in zip(shares, (*size, *size), strict=True))  # type: ignore[return-value]

    def save(self, folder: Path) -> None:
        """Write the convention into a host's folder."""
        content = {"schema": 1, "order": "xyxy", **asdict(self)}
        (Path(folder) / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BoxTextFormat:
        """The convention of a host's folder.

        Raises:
            ValueError: the folder declares none, or the file is not of this form.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise ValueError(
                f"{folder}: no {FILE}, so it is not known how this host writes places; declare it with "
                "`python -m mllm_bridge.box_text FOLDER --scale unit --padded`, or train the host with mllm_bridge.tune"
            )
        return cls.from_json(read_json(path, "how a host writes places", "declare it again"), str(path))

    @classmethod
    def from_json(cls, content: Any, where: str) -> BoxTextFormat:
        """The convention of a file's content."""
        known = {field.name for field in fields(cls)}
        if (
            not isinstance(content, dict)
            or content.get("schema") != 1
            or content.get("order") != "xyxy"
            or set(content) - known - {"schema", "order"}
        ):
            raise ValueError(f"{where}: expected schema 1, order xyxy and {', '.join(sorted(known))}, got {content}")
        return cls(**{key: value for key, value in content.items() if key in known})


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says of places.

    Attributes:
        boxes_xyxy: pixels of the original image.
        failures: what could not be read, by reason.
    """

    boxes_xyxy: tuple[Box, ...]
    failures: Counter[str]
