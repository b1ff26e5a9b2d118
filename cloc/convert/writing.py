"""Drafts become shards on several processes. A shard exists whole or not at all; a killed conversion goes on.

Shard k holds what can be used of drafts k * size to (k + 1) * size - 1, so its bytes do not depend on the number of
processes, nor on what was there before. Where nothing of them can be used there is no shard k.
"""

from __future__ import annotations

import errno
import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.convert.drafts import Draft, finished
from cloc.convert.losses import largest_loss
from cloc.data.shards import ShardEntry
from cloc.data.shards.card import full_card
from cloc.formats.layouts import other_layout
from cloc.jobs import ShardJob, UnfinishedError, entry_of, run_tasks

_TEXT_BYTES = 4096
"""What a sample takes in a shard beside its photo: headers, padding, JSON and caption."""


class LossError(UnfinishedError):
    """Too much was lost for one reason.

    Attributes:
        card: of the set as it would be.
    """

    def __init__(self, message: str, card: dict[str, Any]) -> None:
        super().__init__(message)
        self.card = card


def write_drafts(
    drafts: Iterator[Draft],
    out: Path,
    card: Mapping[str, Any],
    where: str,
    shard_size: int = 1000,
    workers: int = 1,
    total: int | None = None,
    progress: bool = True,
    allow_losses: bool = False,
    examples: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write drafts as shards with a card.

    Args:
        drafts: in their order; may count into `card["dropped"]` and `card["read"]` until they end.
        out: folder to make; must be free.
        card: as for `write_shards`.
        where: what the drafts come from, for messages.
        shard_size: drafts a shard.
        workers: processes.
        total: how many drafts there are, where that is known: for the bar, and to tell how much disk they need.
        progress: show a bar.
        allow_losses: finish although more than a tenth is lost for one reason.
        examples: the first message of a reason, filled while drafts are taken.

    Raises:
        ValueError: no draft can be used, too much is lost (`LossError`), or the disk is too small. Whole shards stay,
            and the same command goes on with them. Or another conversion is writing there.
    """
    job = ShardJob(Path(out))
    with job.opened(card["made"], f"{out}: another conversion is writing it; wait for it, or end it") as there:
        if there is not None:
            return there
        reports = _write_shards(drafts, job, shard_size, workers, total, progress)
        entries = [entry_of(number, report) for number, report in reports.items()]
        first_messages = dict(examples or {})
        for report in reports.values():
            first_messages = report["examples"] | first_messages
        whole = full_card(card, [entry for entry in entries if entry.samples])
        whole["dropped"] = _all_dropped(card, entries)
        if not whole["shards"]:
            job.remove()
            by = str(card["made"].get("by", "")).rpartition(" ")[2]
            raise ValueError(_nothing_usable(where, whole["dropped"], first_messages, by))
        loss = largest_loss(whole, first_messages)
        if loss is not None and loss.ends and not allow_losses:
            raise LossError(
                f"{where}: {loss}. That is more than a tenth: mend the file, or give the same command with "
                "--allow-losses, which goes on with the finished shards",
                whole,
            )
        job.finish(whole)
    return whole


def _write_shards(
    drafts: Iterator[Draft], job: ShardJob, size: int, workers: int, total: int | None, progress: bool
) -> dict[int, dict[str, Any]]:
    """The reports of all shards in their order, of those too that an interrupted conversion left.

    Whatever ends it, finished shards stay: only the card, written last, makes a set of them.
    """
    chunks = enumerate(iter(lambda: list(itertools.islice(drafts, size)), []))
    first = next(chunks, None)
    if first is None:
        return {}
    _refuse_small_disk(job, first[1], total)
    second = next(chunks, None)
    if second is None:
        workers = 1
    reports: dict[int, dict[str, Any]] = {}
    tasks = itertools.chain([first], [] if second is None else [second], chunks)
    try:
        with tqdm(total=total, desc="copying photos", unit="image", disable=not progress) as bar:
            for number, report, count in run_tasks(partial(write_one, job), tasks, workers, job.out):
                reports[number] = report
                bar.update(count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UnfinishedError(_disk_full(job, len(reports), total, size)) from error
    return dict(sorted(reports.items()))


def write_one(job: ShardJob, number: int, drafts: list[Draft]) -> tuple[int, dict[str, Any], int]:
    """Write one shard; (its number, its report, how many drafts there were)."""
    lost, examples = Counter[str](), dict[str, str]()
    report = job.write(number, finished(drafts, lost, examples), lost, lambda: {"examples": examples})
    return number, report, len(drafts)


def _nothing_usable(where: str, dropped: Mapping[str, int], examples: Mapping[str, str], converter: str) -> str:
    why = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items()) or "it is empty"
    largest = max(examples, key=lambda reason: dropped.get(reason, 0), default=None)
    first = f"first: {examples[largest]}; " if largest is not None else ""
    other = other_layout(Path(where), converter)
    return f"{where}: expected at least one usable image, found none ({why}); {first}check it and --images{other}"


def _all_dropped(card: Mapping[str, Any], entries: list[ShardEntry]) -> dict[str, int]:
    """Shards of which nothing could be used have lost something as well."""
    dropped = Counter(card["dropped"])
    for entry in entries:
        dropped.update(entry.dropped)
    return dict(sorted((+dropped).items()))


def _refuse_small_disk(job: ShardJob, first: list[Draft], total: int | None) -> None:
    """From the photos of the first shard: how much the whole set will take, against what is free."""
    lengths = [draft.photo.length() for draft in first if draft.photo is not None]
    needed = int((sum(lengths) / max(1, len(lengths)) + _TEXT_BYTES) * (total if total is not None else len(first)))
    there = sum(path.stat().st_size for path in job.folder.glob("*.tar"))
    free = shutil.disk_usage(job.folder).free
    if needed - there > free:
        if not there:
            job.remove()
        raise UnfinishedError(
            f"{job.out}: expected about {_gigabytes(needed - there)} of free disk for its shards, found "
            f"{_gigabytes(free)}; make room, or give another --out"
        )


def _disk_full(job: ShardJob, count: int, total: int | None, size: int) -> str:
    there = sum(path.stat().st_size for path in job.folder.glob("*.tar"))
    shards = max(1, count)
    wanted = (
        f"about {_gigabytes(int(there / shards * (total / size - shards)))} more" if total and there else "more room"
    )
    return (
        f"{job.out}: the disk is full after {count} shards ({_gigabytes(there)}); it takes {wanted}. Make "
        f"room and give the same command again: it goes on with the whole shards, which lie in {job.folder}"
    )


def _gigabytes(count: int) -> str:
    return f"{max(0, count) / 1e9:,.3g} GB"
