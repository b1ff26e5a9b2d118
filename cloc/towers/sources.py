"""Weights that others made: what a source holds, in transformers' names, with every key accounted for.

A source is one of

    FOLDER, ORG/NAME          transformers (an export of ours, CLIP, SigLIP, Swin, timm_wrapper), or open_clip's folder
    open_clip:ARCH:TAG        a tag of open_clip, or a checkpoint file of that architecture
    timm:ARCH[:FILE]          a timm name, with its tag if any (`vit_base_patch16_clip_224.openai`), or its safetensors

A path never asks the network; a name does where it is not cached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from cloc.model_folders import refusing_code

OPEN_CLIP_CONFIG = "open_clip_config.json"
LIBRARIES = ("timm", "open_clip")
"""Beside transformers: those by whose name a source begins."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from.

    Attributes:
        text: as the user wrote it.
        kind: `transformers`, `open_clip` or `timm`.
        name: folder, hub name or architecture.
        weights: tag or file beside an architecture; empty where `name` says all.
    """

    text: str
    kind: str
    name: str
    weights: str = ""

    @property
    def local(self) -> bool:
        """Whether it is a path on this machine."""
        return Path(self.weights or self.name).exists()


@dataclass(frozen=True, slots=True)
class Weights:
    """What was read of a source.

    Attributes:
        state: parameters of the tower asked for, by transformers' names.
        shared: what belongs to the space shared by images and texts, by `ClocModel`'s names.
        left_over: their keys that were not taken, by the reason.
    """

    state: Mapping[str, torch.Tensor]
    shared: Mapping[str, torch.Tensor] = field(default_factory=dict)
    left_over: Mapping[str, Sequence[str]] = field(default_factory=dict)


def split_source(text: str) -> tuple[str, str, str] | None:
    """(library, name, weights) of `timm:NAME[:WEIGHTS]` or `open_clip:NAME[:WEIGHTS]`; None for anything else."""
    library, colon, rest = text.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    name, _, weights = rest.partition(":")
    return library, name, weights


def is_open_clip_folder(folder: str | Path) -> bool:
    """Whether open_clip wrote a folder, and transformers did not."""
    return (Path(folder) / OPEN_CLIP_CONFIG).is_file() and not (Path(folder) / "config.json").is_file()


def parse_source(text: str) -> Source:
    """Read a source as the user wrote it.

    Raises:
        ValueError: it is no such thing, or a path that does not exist.
    """
    found = split_source(text)
    if found is not None:
        kind, name, weights = found
        if not name or (kind == "open_clip" and not weights):
            form = "open_clip:ARCH:TAG_OR_FILE" if kind == "open_clip" else "timm:ARCH or timm:ARCH:FILE"
            raise ValueError(f"starting weights {text}: expected {form}")
        if _is_path(weights) and not Path(weights).is_file():
            raise ValueError(f"starting weights {text}: there is no file {weights}")
        return Source(text, kind, name, weights)
    if is_open_clip_folder(text):
        return Source(text, "open_clip", text)
    if _is_path(text) and not Path(text).exists():
        raise ValueError(f"starting weights {text}: no transformers folder with a config.json, there is no such path")
    return Source(text, "transformers", text)


def _is_path(text: str) -> bool:
    """Whether a string can only be a path: hub names have at most one slash and no suffix of a weights file."""
    suffixed = Path(text).suffix in (".safetensors", ".pt", ".bin")
    return suffixed or text.startswith((".", "/", "~")) or text.count("/") > 1


def read_transformers_config(source: Source) -> PreTrainedConfig:
    """The config of a transformers folder or name.

    Raises:
        ValueError: there is none.
    """
    try:
        with refusing_code(source.name):
            return AutoConfig.from_pretrained(source.name, trust_remote_code=False, local_files_only=source.local)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"starting weights {source.text}: no transformers folder with a config.json, and not to be had by that "
            f"name ({str(error).splitlines()[0]})"
        ) from error


def read_transformers_weights(cls: type, source: Source, prefix: str = "") -> Weights:
    """A tower of a transformers folder or name, in both of its key layouts (before and after 5.6).

    Args:
        cls: the tower's class; whole models give the tower at `prefix`.
        source: where from.
        prefix: where in `cls` the tower lies.

    Raises:
        ValueError: there are no safetensors, or weights are missing or do not fit the config beside them; all named.
    """
    try:
        with _quiet(), refusing_code(source.name):
            model, report = cls.from_pretrained(
                source.name,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are named below, all of them, instead of in a trace
                local_files_only=source.local,
            )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"starting weights {source.text}: {str(error).splitlines()[0]}") from error
    if report["mismatched_keys"]:
        raise ValueError(
            describe_misfit(source.text, [(k, tuple(t), tuple(o)) for k, t, o in report["mismatched_keys"]])
        )
    if report["missing_keys"]:
        first = sorted(report["missing_keys"])[0]
        raise ValueError(
            f"{source.text}: {len(report['missing_keys'])} weights of {cls.__name__} are missing (first: {first})"
        )
    state = {k.removeprefix(prefix): v for k, v in model.state_dict().items() if k.startswith(prefix)}
    return Weights(state, left_over={"not part of this tower": sorted(report["unexpected_keys"])})


@contextmanager
def _quiet() -> Iterator[None]:
    """No table of every key on the console: `account_for_keys` says it in a line."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def describe_misfit(source: str, pairs: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> str:
    """The message about weights whose shapes do not fit, as (key, shape there, shape here)."""
    shown = ", ".join(f"{key} {there} there, {here} here" for key, there, here in sorted(pairs)[:8])
    more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
    return (
        f"starting weights {source}: {len(pairs)} weights do not fit the model: {shown}{more}; "
        "give the architecture that the weights belong to"
    )


def account_for_keys(weights: Weights, source: str, what: str) -> str:
    """One line on every key: how many were loaded, and which were left over and why."""
    groups = []
    for reason, keys in weights.left_over.items():
        counted = Counter(key.split(".")[0] for key in keys)
        if counted:
            groups.append(f"{', '.join(f'{n} {name}' for name, n in sorted(counted.items()))} ({reason})")
    return f"{what}: {len(weights.state)} weights loaded, left over: {'; '.join(groups) or 'none'}"
