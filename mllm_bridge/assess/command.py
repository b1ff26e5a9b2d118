"""Is stage 2 needed? `python -m mllm_bridge.assess HOST --captions FILE [--grounding FILE]`.

In: a host after stage 1 (projector trained on captions) and held-out conversations in LLaVA's JSON. Out: caption loss
with the own and with another image, retrieval by the projected tokens, grounding, and what follows from them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from cloc import command
from cloc.box_text import BoxTextFormat
from cloc.files import write_json
from mllm_bridge.assess.asker import Asker
from mllm_bridge.assess.measures import measure_captions, measure_grounding
from mllm_bridge.assess.verdict import Assessment, assess
from mllm_bridge.conversations.reading import Conversation, read_conversations
from mllm_bridge.hosts import find_family
from mllm_bridge.hosts.loading import load_host, load_processor
from mllm_bridge.tune.batches import BatchMaker
from mllm_bridge.weights.folders import locate, read_json

MAX_TOKENS = 4096


def run(asked: argparse.Namespace) -> Assessment:
    """Measure a host.

    Raises:
        ValueError: host or files cannot be read, hold nothing that can be used, or the host declares no convention.
    """
    folder = locate(asked.host, "host")
    box_format = BoxTextFormat.load(folder)
    family = find_family(read_json(folder / "config.json"), str(folder))
    host, processor = load_host(folder, family, "cpu"), load_processor(folder)
    maker = BatchMaker(processor, box_format, False, MAX_TOKENS, family)
    found = measure_captions(host, family, maker, _first(asked.captions, asked.images, asked.count))
    del host
    answered = None
    if asked.grounding is not None:
        answered = measure_grounding(Asker(folder, False), _first(asked.grounding, asked.images, asked.count))
    return assess(found, answered)


def _first(file: str, images: str | None, count: int) -> list[Conversation]:
    return list(read_conversations(file, images).conversations[:count])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.assess",
        description="Say whether an MLLM whose projector was trained on captions (stage 1) reads the image at all, and "
        "whether it needs the second stage to answer questions for places. Use conversations that it was not "
        "trained on.",
        epilog="Example: python -m mllm_bridge.assess runs/llava15-projector/host --captions held_out.json "
        "--images data/llava/pretrain --grounding places.json",
    )
    parser.add_argument("host", help="the host's folder, as mllm_bridge.tune wrote it (runs/NAME/host)")
    parser.add_argument("--captions", required=True, metavar="FILE", help="captions as conversations, LLaVA's JSON")
    parser.add_argument(
        "--grounding",
        metavar="FILE",
        help="questions for a place, with the true box in the answer (default: not asked)",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images (default: each file's own folder)")
    parser.add_argument("--count", type=int, default=128, help="of each file the first so many (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    asked = parse(arguments)
    disable_progress_bar()

    def work() -> None:
        if asked.count < 2:
            raise ValueError(f"--count: expected 2 or more, got {asked.count}")
        found = run(asked)
        print(*map(command.printable, found.lines), sep="\n")
        if asked.out is not None:
            write_json(asked.out, {"schema": 1, "host": str(asked.host), **found.figures})

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
