"""Bring a tower into the form that a family of hosts takes: as it is, wrapped, or under the host's own tower class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloc.towers.wrapper import WRAPPED, WrappedTower, WrappedTowerConfig
from mllm_bridge.encoder import NOT_IN_A_HOST, Encoder
from mllm_bridge.hosts.family import STOCK, WRAPPER, HostFamily

KINDS = {
    "cls": "with a CLS token",
    "plain": "without a CLS token",
    "registers": "with registers",
    "pyramid": "of several resolutions",
}


def fit(encoder: Encoder, family: HostFamily) -> Encoder:
    """The encoder, as it was loaded, in the form that goes into this family.

    Raises:
        ValueError: the family does not take such a tower; the message says why.
    """
    converted = family.convert(encoder.config, sorted(encoder.stored))
    if converted is not None:
        config, names = converted
        return _renamed(encoder, config, names)
    how = family.takes(encoder.facts)
    if how == STOCK:
        return encoder
    if how == WRAPPER:
        return _wrapped(encoder, family.leading_token, family.wants_map)
    raise ValueError(
        f"encoder: {encoder.folder} is a {encoder.facts.model_type}, a tower {KINDS[encoder.kind]}; the family "
        f"{family.model_type!r} does not take it: {how}"
    )


def _wrapped(encoder: Encoder, leading_token: bool, as_map: bool) -> Encoder:
    facts, inner = encoder.facts, encoder.tower.config
    config = WrappedTowerConfig(
        tower=inner,
        hidden_size=facts.width,
        patch_size=facts.patch_size,
        image_size=facts.image_size,
        num_hidden_layers=facts.usable - 1,
        layer_norm_eps=getattr(inner, "layer_norm_eps", 1e-6),
        skip=facts.extra_tokens,
        leading_token=leading_token,
        as_map=as_map,
    )
    tower = WrappedTower(config).eval()
    tower.tower = encoder.tower
    fitted = replace(
        facts, model_type=WRAPPED, extra_tokens=int(leading_token), hidden_states=facts.usable, usable=facts.usable
    )
    return replace(
        encoder,
        form=WRAPPER,
        tower=tower,
        config={**config.to_diff_dict(), "tower": {**encoder.config, "model_type": inner.model_type}},
        facts=fitted,
        stored={f"tower.{name}": tensor for name, tensor in encoder.stored.items()},
        hashes={f"tower.{name}": value for name, value in encoder.hashes.items()},
    )


def _renamed(encoder: Encoder, config: dict[str, Any], names: dict[str, str]) -> Encoder:
    """Only what `names` lists goes in; the rest (a pooling head) the host's class has no place for."""
    dropped = tuple(sorted(encoder.stored.keys() - names.keys()))
    return replace(
        encoder,
        form="converted",
        config={key: value for key, value in config.items() if key not in NOT_IN_A_HOST},
        facts=replace(encoder.facts, model_type=config["model_type"]),
        stored={new: encoder.stored[old] for old, new in names.items()},
        hashes={new: encoder.hashes[old] for old, new in names.items()},
        left_behind=(*encoder.left_behind, *dropped),
    )
