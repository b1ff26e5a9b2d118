"""Put another vision tower into an MLLM: `python -m mllm_bridge.swap --mllm HOST --encoder cloc`.

In: a host (folder or hub name) and an encoder. Out: a folder that any transformers installation loads, with tower,
projector, config and processor that agree. Nothing is declared done, and no folder appears, before it is verified.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from cloc import command
from cloc.device import find_device
from cloc.disk import atomic_dir, require_free
from cloc.export import find_next_numbered
from mllm_bridge.encoder import Encoder, load_encoder
from mllm_bridge.hosts import DEFAULT, FAMILIES
from mllm_bridge.hosts.family import STOCK, FeatureLayer
from mllm_bridge.hosts.fitting import fit
from mllm_bridge.hosts.tiny import make_tiny
from mllm_bridge.swap.plan import Host, Plan, make_plan, open_host
from mllm_bridge.swap.report import FORMS, SwapReport
from mllm_bridge.swap.verify import verify
from mllm_bridge.swap.writing import write_host
from mllm_bridge.weights.stored import combine_hashes, hash_stored

FROM_CARD = ("objective", "time", "commit", "version", "model_sha256", "steps", "samples")
"""What the report takes over from an export's card."""


def swap(
    mllm: str | Path | None = None,
    encoder: str | Path = "cloc",
    out: str | Path | None = None,
    *,
    keep_projector: bool = False,
    feature_layer: FeatureLayer = None,
    full_verify: bool = False,
    link: bool = True,
    device: str = "auto",
    seed: int = 0,
    runs: Path = Path("runs"),
    log: Callable[[str], None] = lambda line: None,
) -> SwapReport:
    """Put an encoder into a host, verify the result, and write it.

    Args:
        mllm: folder or hub name of the host; None makes a tiny one with random weights in `runs`.
        encoder: `cloc` for the newest export in `runs`, or a folder or hub name.
        out: folder to write, must not exist or be empty; None takes the next free `swap-N` in `runs`.
        keep_projector: leave the projector as it is; the new tower must have the width of the old one.
        feature_layer: hidden state (or several) that the host reads; None keeps the host's own.
        full_verify: load the whole host and run it for the proof; the tiny one made here is always run.
        link: hard links for files of weights that stay as they are, where the file system allows; False copies them.
        device: where the host runs for the full proof: `auto`, or a torch device.
        seed: of the new projector's random weights.
        runs: folder with the runs.
        log: takes each line of the progress.

    Returns:
        What changed and what was verified.

    Raises:
        ValueError: host and encoder do not fit, or cannot be read; the message says what to do.
        VerifyError: the result does not agree with itself; nothing is left on disk.
    """
    target, device = Path(out) if out is not None else find_next_numbered(runs, "swap"), find_device(device)
    full_verify = full_verify or mllm is None  # a host made here is tiny
    require_free(target)
    host = None if mllm is None else open_host(mllm)  # without its weights, so what does not fit is soon said
    if host is not None:
        require_free(target, host.folder)
    chosen = load_encoder(encoder, runs)
    require_free(target, chosen.folder if chosen.card is None else chosen.folder.parent)
    log(f"encoder: {chosen.folder}{_origin(chosen)}\n{_indented(chosen.facts.describe())}")
    if host is None:
        mllm = make_tiny(runs / f"tiny-{DEFAULT.model_type}")
        log("host: none was named, so a tiny one with random weights is made here")
        host = open_host(mllm)
    log(f"host: {host.folder}, family {host.family.model_type}")
    chosen = fit(chosen, host.family)
    if chosen.form != STOCK:
        log(f"the tower goes in {FORMS[chosen.form]}")
    plan = make_plan(host, chosen, keep_projector, feature_layer)
    names = (str(mllm), str(encoder))
    report = _write(target, host, plan, chosen, names, None if keep_projector else seed, full_verify, link, device, log)
    for line in report.lines():
        log(line)
    return report


def _write(
    target: Path,
    host: Host,
    plan: Plan,
    chosen: Encoder,
    names: tuple[str, str],
    fresh: int | None,
    full_verify: bool,
    link: bool,
    device: str,
    log: Callable[[str], None],
) -> SwapReport:
    """Write the new host beside its place and prove it; only then does it appear there."""
    with atomic_dir(target) as folder:
        log("writing weights, config and processor")
        files = write_host(folder, host, plan, chosen, fresh, link)
        checks = verify(
            folder,
            chosen,
            host=host.weights,
            keep_projector=fresh is None,
            full=full_verify,
            feature_layer=plan.layer,
            device=device,
            log=log,
        )
        report = _report(target, *names, host, plan, chosen, fresh)
        report = replace(report, checks=tuple(checks), files=files)
        report.save(folder)
    return report


def _report(
    target: Path, mllm: str, asked: str, host: Host, plan: Plan, encoder: Encoder, seed: int | None
) -> SwapReport:
    return SwapReport(
        out=target,
        mllm=mllm,
        family=host.family.model_type,
        encoder=asked,
        encoder_folder=str(encoder.folder),
        export=None if encoder.card is None else {key: encoder.card.get(key) for key in FROM_CARD},
        tower_before=_tower_before(host),
        tower_after={**encoder.facts.to_json(), "form": encoder.form, **_hashed(encoder.hashes)},
        projector=_projector(host, plan, seed),
        changes=plan.changes,
        left_behind=encoder.left_behind,
    )


def _hashed(hashes: dict[str, str]) -> dict[str, Any]:
    return {"tensors": len(hashes), "sha256": combine_hashes(hashes)}


def _tower_before(host: Host) -> dict[str, Any]:
    tower = host.towers[0]
    hashes = {tower.name(key): hash_stored(host.weights.tensors[key]) for key in tower.keys}
    return {"model_type": host.config.get("vision_config", {}).get("model_type"), **_hashed(hashes)}


def _projector(host: Host, plan: Plan, seed: int | None) -> dict[str, Any]:
    before, after = (host.family.projector_width(config) for config in (host.config, plan.config))
    return {"kept": seed is None, "width_before": before, "width_after": after, "seed": seed}


def _origin(encoder: Encoder) -> str:
    return f" (objective {encoder.card.get('objective')}, {encoder.card.get('time')})" if encoder.card else ""


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.swap",
        description="Put another vision encoder into an MLLM. Tower, projector, config and processor of the result "
        "agree, and that is verified before the result appears. The new projector is random and needs training.",
        epilog="Bare, it puts the newest export of this kit into a tiny host with random weights, made on the spot. "
        f"Families of hosts: {', '.join(sorted(FAMILIES))}.",
    )
    parser.add_argument(
        "--mllm", metavar="HOST", help="the MLLM: a folder or hub name (default: a tiny one, made here)"
    )
    parser.add_argument(
        "--encoder",
        default="cloc",
        help="`cloc` for the newest export in runs/ (default), an export folder (runs/NAME/export), or the folder or "
        "hub name of a CLIP, SigLIP, DINOv2, DINOv3, ViT or Swin tower, timm:ARCH[:FILE], open_clip:ARCH:TAG_OR_FILE",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write, new or empty (default: the next free runs/swap-N)"
    )
    parser.add_argument(
        "--keep-projector",
        action="store_true",
        help="leave the projector as it is (only for a tower of the same width)",
    )
    parser.add_argument(
        "--feature-layer",
        type=int,
        nargs="+",
        metavar="N",
        help="hidden state of the tower that the host reads, or several (default: as the host has it)",
    )
    parser.add_argument(
        "--full-verify",
        action="store_true",
        help="load the whole host and run it for the proof (default: its language model is never loaded; keys, shapes, "
        "hashes, token counts and processor are proven)",
    )
    parser.add_argument(
        "--copy",
        action="store_true",
        help="copy the host's unchanged files of weights (default: hard links, where the file system allows)",
    )
    parser.add_argument("--device", default="auto", help="where the host runs for --full-verify (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the new projector's random weights (default: 0)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    asked = parse(arguments)
    layers = asked.feature_layer
    disable_progress_bar()

    def work() -> None:
        report = swap(
            asked.mllm,
            asked.encoder,
            asked.out,
            keep_projector=asked.keep_projector,
            feature_layer=layers[0] if layers is not None and len(layers) == 1 else layers,
            full_verify=asked.full_verify,
            link=not asked.copy,
            device=asked.device,
            seed=asked.seed,
            log=lambda line: print(command.printable(line), flush=True),
        )
        print(command.printable(f"written: {report.out} (swap_report.json and README.md lie in it)"))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
