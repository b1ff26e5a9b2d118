"""YAML and overrides in, a checked config out; and back. The same lines for every kind of config."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from cloc.config.run import Config
from cloc.data_root import REPOSITORY
from cloc.files import parse_yaml, read_yaml

OTHER_NAMES = {
    "learning_rate": "lr", "base_lr": "lr", "max_lr": "lr", "peak_lr": "lr", "wd": "weight_decay",
    "decay": "weight_decay",
    "bs": "batch_size", "batch": "batch_size", "global_batch_size": "batch_size", "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size", "micro_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation", "grad_accum": "accumulation", "accumulate": "accumulation",
    "accum_freq": "accumulation", "max_steps": "steps", "num_steps": "steps", "iterations": "steps", "iters": "steps",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "warmup": "warmup_steps", "num_warmup_steps": "warmup_steps",
    "warmup_ratio": "warmup_steps", "max_grad_norm": "clip_grad_norm", "grad_clip": "clip_grad_norm",
    "gradient_clipping": "clip_grad_norm", "grad_clip_norm": "clip_grad_norm", "adam_beta1": "beta1",
    "adam_beta2": "beta2", "adam_epsilon": "eps", "num_workers": "workers", "dataloader_num_workers": "workers",
    "logging_steps": "log_every", "log_interval": "log_every", "log_every_n_steps": "log_every",
    "save_steps": "checkpoint_every", "save_frequency": "checkpoint_every", "checkpoint_interval": "checkpoint_every",
    "save_total_limit": "keep_checkpoints", "report_to": "trackers", "logger": "trackers",
    "mixed_precision": "precision", "dtype": "precision", "bf16": "precision", "amp": "precision", "fp16": "precision",
    "gradient_checkpointing": "activation_checkpointing", "grad_checkpointing": "activation_checkpointing",
    "torch_compile": "compile", "torchcompile": "compile", "resolution": "image_size", "img_size": "image_size",
    "hidden_size": "width", "num_hidden_layers": "layers", "depth": "layers", "num_attention_heads": "heads",
    "num_heads": "heads", "context_length": "context", "max_length": "context", "projection_dim": "embed_dim",
    "pretrained": "source", "init_from": "source", "checkpoint": "source", "license": "licence", "data_path": "path",
    "dataset": "path", "train_data": "path", "experiment_name": "name", "exp_name": "name", "run_name": "name",
}  # fmt: skip
"""What fields are called in transformers, open_clip, lightning and the like."""
OTHERWISE = {
    "epochs": "a run's length is train.steps or train.samples",
    "output_dir": "runs lie in --runs FOLDER, each under its run.name",
    "out": "runs lie in --runs FOLDER, each under its run.name",
    "resume": "a run goes on with --resume auto or --resume FOLDER",
    "resume_from_checkpoint": "a run goes on with --resume auto or --resume FOLDER",
    "lr_scheduler_type": "the rate rises for optim.warmup_steps and falls as a cosine",
    "scheduler": "the rate rises for optim.warmup_steps and falls as a cosine",
    "optimizer": "it is AdamW; its numbers are those of optim",
}
"""What has no field."""
NEAR, VERY_NEAR = 0.6, 0.8
"""Likeness from which a name is offered: among the fields beside it, and in the whole config."""
MOST_NAMED = 12
"""Fields that are listed where nothing is near."""


def what_is_meant(kind: type[BaseModel], location: Sequence[str]) -> str:
    """A clause for an unknown key.

    Args:
        kind: of the config.
        location: the key, with the groups and positions that lead to it.
    """
    *parents, last = location
    beside = list(_fields_at(kind, parents))
    name = last.lower().replace("-", "_")
    everywhere = list(dict.fromkeys(_all_fields(kind)))

    def there(wanted: str) -> list[str]:
        return [path for path in everywhere if path.rpartition(".")[2] == wanted]

    known = OTHER_NAMES.get(name, name)
    if known in beside:
        return f"the nearest known one is {'.'.join([*parents, known])!r}"
    near = difflib.get_close_matches(name, beside, n=1, cutoff=NEAR)
    if near and known == name:
        return f"the nearest known one is {'.'.join([*parents, near[0]])!r}"
    if there(known):
        return f"the nearest known one is {' or '.join(repr(path) for path in there(known)[:3])}"
    if known in OTHERWISE:
        return OTHERWISE[known]
    if near:
        return f"the nearest known one is {'.'.join([*parents, near[0]])!r}"
    last_parts = sorted({path.rpartition(".")[2] for path in everywhere})
    far = difflib.get_close_matches(name, last_parts, n=1, cutoff=VERY_NEAR)
    if far:
        return f"the nearest known one is {' or '.join(repr(path) for path in there(far[0])[:3])}"
    more = ", ..." if len(beside) > MOST_NAMED else ""
    return f"known{' in ' + '.'.join(parents) if parents else ''}: {', '.join(beside[:MOST_NAMED])}{more}"


def _all_fields(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    """Dotted names of all fields, the shallow ones first; the first position stands for every one of a list."""
    inner = []
    for name, field in kind.model_fields.items():
        yield before + name
        place, path = _plain(field.annotation), before + name
        if get_origin(place) in (tuple, list):
            place, path = _plain(get_args(place)[0]), f"{path}.0"
        if isinstance(place, type) and issubclass(place, BaseModel):
            inner.append((place, path))
    for place, path in inner:
        yield from _all_fields(place, f"{path}.")


def _fields_at(kind: type[BaseModel], location: Sequence[str]) -> Iterator[str]:
    place: Any = kind
    for part in location:
        place = _below(place, part)
    return iter(place.model_fields)


def _below(place: Any, part: str) -> Any:
    """What lies at `part` of a model, or at any position or key of a container; an optional one without its None."""
    if get_origin(place) is None:
        return _plain(place.model_fields[part].annotation)
    return _plain(next(one for one in reversed(get_args(place)) if one is not ...))


def _plain(place: Any) -> Any:
    if get_origin(place) in (Union, UnionType):
        return next(one for one in get_args(place) if one is not type(None))
    return place


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Change one field of plain data in place, by its dotted name; positions in lists are numbers.

    Raises:
        ValueError: the override is malformed, or leads through a value that holds no fields.
    """
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ValueError(f"override {override!r}: expected KEY=VALUE, such as loss.regions_per_image=2")
    *parents, last = name.split(".")
    place: Any = raw
    for part in parents:
        if isinstance(place, list):
            place = place[_position(place, part, override)]
        elif isinstance(place, dict):
            if not isinstance(place.get(part), (dict, list)):
                place[part] = {}
            place = place[part]
        else:
            raise ValueError(f"override {override!r}: expected fields at {part!r}, got {place!r}")
    parsed = parse_yaml(value, f"override {override!r}") if value else None
    if isinstance(place, list):
        place[_position(place, last, override)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise ValueError(f"override {override!r}: expected fields at {last!r}, got {place!r}")


def _position(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ValueError(f"override {override!r}: expected a position from 0 to {len(items) - 1}, got {part!r}")
    return int(part)


MOST_TOLD, MOST_SHOWN = 20, 200
"""Mistakes that are listed at once, and characters of a value that are shown."""
Kind = TypeVar("Kind", bound=BaseModel)


def find_config(path: str, folder: str = "configs") -> Path:
    """A config by path, looked for from the current folder, then from the repository.

    Raises:
        ValueError: there is none; those in `folder` of the repository are named.
    """
    for candidate in (Path(path), REPOSITORY / path):
        if candidate.is_file():
            return candidate
    known = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / folder).glob("*.yaml"))
    raise ValueError(f"config {path}: no such file; known: {', '.join(known) or 'none'}")


def read_config(kind: type[Kind], file: Path, overrides: Sequence[str] = ()) -> Kind:
    """Read a YAML file as a config of one kind and apply `a.b=c` overrides.

    Raises:
        ValueError: the file is no text or no mapping, an override is malformed, a key is unknown (the nearest known one
            is named), or a value does not fit.
    """
    raw = read_yaml(file)
    if not isinstance(raw, dict):
        needed = " and ".join(name for name, field in kind.model_fields.items() if field.is_required())
        raise ValueError(f"{file}: expected a mapping with keys such as {needed}, got {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return checked(kind, raw, str(file))


def checked(kind: type[Kind], raw: dict[str, Any], where: str = "config") -> Kind:
    """A config of one kind from plain data; see `read_config` for the errors, which are listed all at once."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [f"{where}: {_explain(kind, e)}" for e in error.errors(include_url=False)]
        more = [f"{where}: and {len(lines) - MOST_TOLD} mistakes more"] if len(lines) > MOST_TOLD else []
        raise ValueError("\n".join(lines[:MOST_TOLD] + more)) from None


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a training run; see `find_config` and `read_config` for the errors."""
    return read_config(Config, find_config(path), overrides)


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """The same from plain data."""
    return checked(Config, raw, where)


def dump_config(config: BaseModel) -> str:
    """A resolved config as YAML, with every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _explain(kind: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location)
    if error["type"] != "extra_forbidden":
        own = error["type"] == "value_error"  # a sentence of ours, which says what it got
        shows_value = location and error["type"] != "missing" and not (own and isinstance(error["input"], dict))
        message = error["msg"].removeprefix("Value error, ") + (
            f" (got {_short(error['input'])})" if shows_value else ""
        )
        return f"{name}: {message}" if name else message
    return f"{name[:MOST_SHOWN]}: unknown key; {what_is_meant(kind, location)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
