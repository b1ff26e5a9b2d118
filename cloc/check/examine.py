"""One pass over a set: what is in it, what is wrong with it, and what of it stands in an evaluation split as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from cloc.check.evaluations import Evaluation, find_photo_names, hash_bytes
from cloc.data.shards import ShardSet
from cloc.data.tables import TableSet
from cloc.images import ImageError, displayed_size, read_header
from cloc.structures import DataError, Sample
from cloc.text import concept_name

EXAMPLES = 5
"""Keys that are kept for each fault, so that somebody can look."""

SAME_VOCABULARY = 0.5
"""Share of names in common from which two category lists are taken for two numberings of one vocabulary. LVIS 0.5 and
1.0 are far above it, COCO and LVIS far below."""


@dataclass
class Findings:
    """What one pass found.

    Attributes:
        counts: samples, captions, regions, different images, different phrases.
        faults: how often, by name: unreadable samples and regions by the reason of the reader, and `duplicate_key`,
            `duplicate_image_id`, `duplicate_image` (equal bytes under several keys), `image_of_other_size` (its header
            differs from its JSON, shown as EXIF says too), `category_clash` (one id with two names),
            `count_differs_from_card`, `sha256_differs_from_card` (a shard's bytes are not those that were written).
        examples: up to `EXAMPLES` keys for each fault.
        overlaps: for each evaluation split how many samples' photos stand in it, by `name` or by `bytes`.
        clashes: (id, name here, name there) of categories that are numbered differently; `there` is the set itself or
            an evaluation split with much the same names.
        other_vocabularies: evaluation splits with categories of their own, which share few names with the set's.
        licences: samples by the licence that they, or else the card, tell.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    overlaps: dict[str, Counter[str]] = field(default_factory=dict)
    clashes: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    other_vocabularies: list[str] = field(default_factory=list)
    licences: Counter[str] = field(default_factory=Counter)

    def fault(self, name: str, key: str, count: int = 1) -> None:
        """Count a fault and remember where it was."""
        self.faults[name] += count
        shown = self.examples.setdefault(name, [])
        if len(shown) < EXAMPLES and key not in shown:
            shown.append(key)

    @property
    def grave(self) -> list[str]:
        """What should be put right before anything is trained: a line each."""
        lines = [
            f"{sum(found.values()):,} samples stand in the evaluation split {name}"
            for name, found in self.overlaps.items()
            if found
        ]
        lines += [f"{len(found):,} category ids mean something else in {name}" for name, found in self.clashes.items()]
        names = ("bad_shard", "truncated_shard", "sha256_differs_from_card", "duplicate_key")
        broken = {name: self.faults[name] for name in names if self.faults[name]}
        return lines + [f"{number:,} {name}" for name, number in broken.items()]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "counts": dict(self.counts),
            "faults": dict(sorted(self.faults.items())),
            "examples": dict(sorted(self.examples.items())),
            "overlaps": {name: dict(found) for name, found in self.overlaps.items()},
            "clashes": {name: [list(clash) for clash in found] for name, found in self.clashes.items()},
            "strangers": self.other_vocabularies,
            "licences": dict(self.licences),
            "grave": self.grave,
        }


class _Known:
    """What must not come twice, as 64-bit numbers: about 100 bytes a sample, all told."""

    def __init__(self) -> None:
        self.keys, self.ids, self.images, self.phrases = set[int](), set[int](), set[int](), set[int]()
        self.names: dict[int, str] = {}

    def again(self, kind: set[int], value: str | bytes) -> bool:
        number = hash_bytes(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
        known = number in kind
        kind.add(number)
        return known


def read_samples(samples: ShardSet | TableSet, found: Findings, progress: bool = True) -> Iterator[Sample]:
    """The readable samples in order; the others become faults."""
    with tqdm(total=samples.num_samples, desc="looking", unit="sample", disable=not progress) as bar:
        for shard, count in enumerate(samples.counts):
            there = count if isinstance(samples, TableSet) else min(count, len(samples.index(shard)))
            for row in range(there):
                try:
                    yield samples.read_sample(shard, row)
                except DataError as error:
                    found.fault(error.reason, f"{samples.shards[shard].name} sample {row}")
                bar.update()
            if there < count:  # what the card promises beyond the end of the file, however much that is
                reason = "bad_shard" if samples.index(shard).fault else "truncated_shard"
                found.fault(reason, f"{samples.shards[shard].name} sample {there}", count - there)
                bar.update(count - there)


def _check_bytes(samples: ShardSet | TableSet, found: Findings) -> None:
    """Compare each shard's SHA-256 with the card's."""
    if isinstance(samples, TableSet):
        return
    for path in samples.altered_shards():
        found.fault("sha256_differs_from_card", path.name)


def examine(samples: ShardSet | TableSet, against: Iterable[Evaluation] = (), progress: bool = True) -> Findings:
    """Look at every sample once, and at every byte of the shards. Photos are not decoded; their headers are read.

    Args:
        samples: as `open_samples` gives them.
        against: evaluation splits whose photos must not be in the set.
        progress: show a bar.
    """
    found, earlier, splits = Findings(), _Known(), list(against)
    found.counts.update(samples=0, captions=0, regions=0)
    found.overlaps = {split.name: Counter() for split in splits}
    card = samples.card or {}
    earlier.names.update({entry["id"]: entry["name"] for entry in card.get("categories", ())})
    _check_bytes(samples, found)
    for sample in read_samples(samples, found, progress):
        found.counts.update(samples=1, captions=int(bool(sample.caption)), regions=len(sample.regions))
        for reason, number in sample.dropped.items():
            found.fault(reason, sample.key, number)
        digest = _check_identity(sample, earlier, found)
        _check_categories(sample, earlier, found)
        _check_overlap(sample, digest, splits, found)
        source = sample.extras.get("source")
        licence = source.get("licence") if isinstance(source, Mapping) else None
        found.licences[str(licence or card.get("licence") or "not stated")] += 1
    found.counts["different images"] = len(earlier.images)
    found.counts["different phrases"] = len(earlier.phrases)
    _check_against_card(card, found)
    for split in splits:
        _check_numbering(split, earlier.names, found)
    return found


def _check_identity(sample: Sample, earlier: _Known, found: Findings) -> int:
    if earlier.again(earlier.keys, sample.key):
        found.fault("duplicate_key", sample.key)
    image_id = sample.extras.get("image_id")
    if image_id is not None and earlier.again(earlier.ids, str(image_id)):
        found.fault("duplicate_image_id", sample.key)
    if earlier.again(earlier.images, sample.image):
        found.fault("duplicate_image", sample.key)
    try:
        stated, stored = (sample.width, sample.height), read_header(sample.image)[1]
        if stated != stored and (stated != stored[::-1] or stated != displayed_size(sample.image)):
            found.fault("image_of_other_size", sample.key)
    except ImageError as error:
        found.fault({"too_large": "image_too_large"}.get(error.reason, "image_unreadable"), sample.key)
    return hash_bytes(sample.image)


def _check_categories(sample: Sample, earlier: _Known, found: Findings) -> None:
    for region in sample.regions:
        earlier.again(earlier.phrases, region.phrase)
        label = region.extras.get("category_id")
        if isinstance(label, int):
            known = earlier.names.setdefault(label, region.phrase)
            if concept_name(known) != concept_name(region.phrase):
                found.fault("category_clash", sample.key)
                clash, listed = (label, region.phrase, known), found.clashes.setdefault("the set itself", [])
                if clash not in listed:
                    listed.append(clash)


def _check_overlap(sample: Sample, digest: int, splits: list[Evaluation], found: Findings) -> None:
    names = find_photo_names(sample)
    for split in splits:
        how = "name" if names & split.photos else "bytes" if digest in split.hashes else None
        if how is not None:
            found.overlaps[split.name][how] += 1
            found.fault(f"in {split.name}", sample.key)


def _check_numbering(split: Evaluation, names: Mapping[int, str], found: Findings) -> None:
    """LVIS 0.5 and 1.0, for one, number differently: the same id is another category."""
    ours, theirs = ({concept_name(name) for name in listed.values()} for listed in (names, split.categories))
    if ours and theirs and len(ours & theirs) < SAME_VOCABULARY * len(ours | theirs):
        found.other_vocabularies.append(split.name)
        return
    both = sorted(names.keys() & split.categories.keys())
    other = [(i, names[i], split.categories[i]) for i in both if _differ(names[i], split.categories[i])]
    if other:
        found.clashes[split.name] = other


def _differ(one: str, two: str) -> bool:
    return concept_name(one) != concept_name(two)


def _check_against_card(card: Mapping[str, Any], found: Findings) -> None:
    promised = card.get("counts", {})
    for what in ("samples", "captions", "regions"):
        if what in promised and promised[what] != found.counts[what]:
            example = f"{what}: {promised[what]:,} on the card, {found.counts[what]:,} found"
            found.fault("count_differs_from_card", example)
