"""Where a tuning run's host and conversations come from (paths, and the reserved words `newest` and `scenes`), and the
folder that it goes to, which is never overwritten and found again for `--resume`. Its result lies in `host/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cloc import comm
from cloc.box_text import BoxTextFormat
from cloc.data_root import find_data_root
from cloc.train import runs as pretraining
from cloc.train.runs import RunKind
from mllm_bridge.conversations.reading import Conversation, read_conversations
from mllm_bridge.tune.settings import DataSettings, TuneConfig, load_settings
from mllm_bridge.weights.folders import locate, read_json

NEWEST, SCENES = "newest", "scenes"
CONVERSATIONS = "llava/conversations_regions.json"
RESULT, CARD = "host", "tune.json"
TUNING = RunKind(load_settings, "result", RESULT, CARD)


def find_host(asked: str, runs: Path) -> Path:
    """The host's folder; `newest` is the newest verified swap, made from the newest export where there is none.

    Raises:
        ValueError: there is no such host, or no export to make one with.
    """
    if asked != NEWEST:
        return locate(asked, "host")
    found: object = None
    if comm.is_main():
        try:
            found = _newest(runs)
        except ValueError as error:
            found = str(error)
    found = comm.from_main(found)
    if isinstance(found, str):
        raise ValueError(found)
    assert isinstance(found, Path)
    return found


def _newest(runs: Path) -> Path:
    from mllm_bridge.swap.command import swap

    reports = list(runs.glob("*/swap_report.json"))
    if reports:
        return max(reports, key=lambda path: path.stat().st_mtime).parent
    return swap(runs=runs, log=lambda line: print(line, flush=True)).out


def open_conversations(
    data: Sequence[DataSettings], box_format: BoxTextFormat, pictured: bool = False
) -> tuple[list[Conversation], Counter[str]]:
    """All conversations of a run, and the entries left out, by reason; with `pictured` those without an image too.

    Raises:
        ValueError: a file is missing, holds nothing that can be used, or writes boxes in another convention.
    """
    conversations, skipped = list[Conversation](), Counter[str]()
    for entry in data:
        file, images = (Path(entry.path), entry.images) if entry.path != SCENES else _scenes()
        _require_convention(file, box_format)
        found = read_conversations(file, images)
        conversations += found.conversations
        skipped += found.skipped
    usable = [one for one in conversations if one.images or not pictured]
    if len(usable) < len(conversations):
        skipped["no_image"] += len(conversations) - len(usable)
    if not usable:
        raise ValueError("data: this family of hosts reads no text without an image, and no conversation has one")
    return usable, skipped


def _scenes() -> tuple[Path, str]:
    """The rendered world's training conversations, and the folder of their images."""
    root = find_data_root(must_exist=False) / SCENES
    if not (root / CONVERSATIONS).is_file():
        raise ValueError(
            f"data: {root} holds no {CONVERSATIONS}; render a world with conversations: "
            f"`python -m cloc.scenes --out {root}` (see its --help)"
        )
    return root / CONVERSATIONS, str(root)


def _require_convention(file: Path, box_format: BoxTextFormat) -> None:
    """What the kit makes (rendered worlds, `mllm_bridge.conversations`) says in its card how boxes are written; the
    host has to keep to the same.

    Raises:
        ValueError: they differ.
    """
    card = file.parent / "card.json"
    stated = read_json(card).get("coordinates") if card.is_file() else None
    if stated is None:
        return
    sizes = {"unit": ("digits", box_format.digits), "bins": ("to", box_format.bins - 1), "pixels": ("to", None)}
    name, value = sizes.get(box_format.scale, ("to", 1000))
    if stated.get("padded", box_format.padded) is not box_format.padded:
        raise ValueError(
            f"places: {file} writes boxes of the image {'padded to a square' if stated['padded'] else 'as it is'}, the "
            f"host as {box_format.name}; set places.padded={str(stated['padded']).lower()}"
        )
    if stated.get("convention") != box_format.scale or stated.get(name) != value:
        raise ValueError(
            f"places: {file} writes boxes as {stated.get('convention')} ({name} {stated.get(name)}), the host as "
            f"{box_format.name}; set places to the file's convention, or make the file again with the host's"
        )


def open_run(
    runs: Path, config: TuneConfig, resume: str | None, held: ExitStack | None = None
) -> tuple[Path, Path | None]:
    """The run's folder and the checkpoint to continue from (None: from the start); see `cloc.train.runs.open_run`."""
    return pretraining.open_run(runs, config, resume, TUNING, held)
