"""A labelling job: check everything that can be checked, label what is not finished yet, write the card last."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.shards import ShardSet, find_made
from cloc.data.shards.card import complete_card
from cloc.device import find_device
from cloc.jobs import ShardJob, make_entry
from cloc.label.captioner import describe_captioner
from cloc.label.detectors import describe_detector
from cloc.label.local import Advance, Work, run_here, run_processes
from cloc.label.settings import LabelSettings
from cloc.label.shard import Labeller, estimate_bytes
from cloc.label.table1 import compute_statistics
from cloc.phrases import LIBRARIES, make_chunker

LABELLER = 2
"""Raised when equal input and settings give other labels than before."""

Runner = Callable[[Work, list[int], Advance], Counter[str]]


@dataclass(frozen=True)
class Labelled:
    """What a job gives back.

    Attributes:
        card: of the finished set.
        seconds: spent in the models and in all by this run; empty where there was nothing left to do.
        resumed: shards that were finished before.
    """

    card: dict[str, Any]
    seconds: Counter[str]
    resumed: int = 0


def label(
    source: Path,
    out: Path,
    settings: LabelSettings,
    workers: int = 1,
    runner: Runner | None = None,
    progress: bool = True,
    make: Callable[[str], Labeller] | None = None,
) -> Labelled:
    """Label every shard of a set.

    Args:
        source: folder (or pattern) of image-text shards.
        out: folder to make; one that is there and was made in the same way is left alone.
        settings: what decides the labels.
        workers: processes on this machine; 1 works in this process.
        runner: runs shards elsewhere, in place of `workers`.
        progress: show a bar.
        make: makes the labeller on a device, in place of loading what the settings name.

    Raises:
        ValueError: source, settings, models or `out` cannot be used, or nothing could be labelled.
    """
    shards = ShardSet.open(source, kind="pairs")
    find_device(settings.device)
    make_chunker(settings.chunker, settings.generic_words)  # a missing one is said before the models are loaded
    models = {"detector": describe_detector(settings.detector, settings.size)} if make is None else {}
    if settings.captioner is not None and make is None:
        models["captioner"] = describe_captioner(settings.captioner)
    made = _describe_made(shards, settings, models)
    there = find_made(Path(out), made)
    if there is not None:
        return Labelled(there, Counter())
    job = ShardJob(Path(out), "labelling", "job.json")
    busy = f"{out}: another labelling job is writing it; wait for it, or end it"
    with job.opened(made, busy, keep_others=True) as card:
        if card is not None:
            return Labelled(card, Counter(), len(card["shards"]))
        before = _find_reports(job, shards)
        todo = [number for number in range(len(shards.shards)) if number not in before]
        _refuse_full_disk(shards, todo, job.folder)
        make = make or partial(Labeller.load, settings)
        work = Work(os.path.abspath(source), replace(job, out=job.out.absolute()), make, settings.device)
        if runner is None:
            runner = run_here if workers == 1 else partial(run_processes, workers=workers)
        start = sum(report["read"] for report in before.values())
        with tqdm(total=shards.num_samples, initial=start, desc="labelling", unit="image", disable=not progress) as bar:
            seconds = runner(work, todo, lambda n: bar.update(n)) if todo else Counter()
        card = _make_card(shards, settings, models, made, _find_reports(job, shards))
        _drop_empty(job.folder, card)
        job.finish(card)
    return Labelled(card, seconds, len(before))


def _find_reports(job: ShardJob, shards: ShardSet) -> dict[int, dict[str, Any]]:
    """The reports of the finished shards, by number."""
    found = {number: job.find_report(number) for number in range(len(shards.shards))}
    return {number: report for number, report in found.items() if report is not None}


def _describe_made(shards: ShardSet, settings: LabelSettings, models: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the content: the shards, the settings, the weights."""
    hashes = {entry["file"]: entry.get("sha256") for entry in (shards.card or {}).get("shards", ())}
    whole = sha256()
    for path in shards.shards:
        whole.update(f"{path.name} {path.stat().st_size} {hashes.get(path.name)}\n".encode())
    weights = {role: facts.get("weights_sha256") or facts.get("revision") for role, facts in models.items()}
    plain = {**settings.to_json(), **{role: facts["name"] for role, facts in models.items()}}
    return {
        "by": "cloc.label",
        "labeller": LABELLER,
        "shards": len(shards.shards),
        "listing_sha256": whole.hexdigest(),
        "settings": plain,
        "weights": weights,
    }


def _refuse_full_disk(shards: ShardSet, todo: list[int], folder: Path) -> None:
    needed = estimate_bytes(shards, todo)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder.parent}: expected {needed / 1e9:,.2f} GB of free space for the shards to come, found "
            f"{free / 1e9:,.2f} GB; free some, or give another --out"
        )


def _drop_empty(folder: Path, card: dict[str, Any]) -> None:
    """A shard of which nothing was left is no shard of the set."""
    card["shards"] = [entry for entry in card["shards"] if entry["samples"]]
    if not card["shards"]:
        reasons = ", ".join(f"{number:,} {why}" for why, number in card["dropped"].items())
        raise ValueError(f"expected at least one image that can be labelled, got none ({reasons}); see {folder}")


def _make_card(
    shards: ShardSet,
    settings: LabelSettings,
    models: dict[str, Any],
    made: dict[str, Any],
    reports: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    assert len(reports) == len(shards.shards), "a runner came back before every shard was finished"
    source = shards.card or {}
    sums, read = Counter[str](), 0
    for number in sorted(reports):
        sums.update(reports[number]["sums"])
        read += reports[number]["read"]
    name = source.get("name", Path(shards.shards[0]).parent.name)
    licence = {"images": source.get("licence", "not stated")}
    licence |= {f"labels ({role} {facts['name']})": facts["licence"] for role, facts in models.items()}
    labelling = {**models, "settings": made["settings"], "versions": _list_versions(settings)}
    labelling["batches_repeated_one_by_one"] = sums.pop("batches_repeated", 0)
    head = {
        "name": f"{name}-labelled",
        "kind": "regions",
        "rendered": source.get("rendered", False),
        "licence": "; ".join(f"{what}: {text}" for what, text in licence.items()),
        "made": made,
        "read": {"samples": read},
        "labelling": labelling,
        "statistics": compute_statistics(sums),
    }
    return complete_card(head, [make_entry(number, reports[number]) for number in sorted(reports)])


def _list_versions(settings: LabelSettings) -> dict[str, str]:
    names = ["torch", "torchvision", "transformers", *(LIBRARIES.get(settings.chunker, ()))]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
