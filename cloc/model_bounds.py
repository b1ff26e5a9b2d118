"""A config from somebody else's folder, looked at before the library builds anything from it: types and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_LAYERS = 1_000
BOUNDS = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth"), MOST_LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "num_channels"), 4_096),
    **dict.fromkeys(("hidden_size", "projection_dim", "embed_dim", "head_dim", "d_model", "width"), 1 << 17),
    **dict.fromkeys(("intermediate_size", "alignment_intermediate_size", "d_ff", "ffn_dim"), 1 << 20),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 1 << 17),
    **dict.fromkeys(("vocab_size", "image_seq_length", "mm_tokens_per_image"), 1 << 24),
    **dict.fromkeys(("image_size", "patch_size", "crop_size"), 1 << 14),
    "max_position_embeddings": 1 << 31,
}
"""Fields that say how much is built, each with a size beyond every published model; lists hold a number a stage."""
MORE_BOUNDS = {
    **dict.fromkeys(("depths", "layers", "decoder_layers", "encoder_layers", "num_convs"), 1_000),
    **dict.fromkeys(("heads", "decoder_attention_heads", "encoder_attention_heads", "window", "window_size"), 4_096),
    **dict.fromkeys(("num_queries", "context", "text_context"), 1 << 24),
    "height": 1 << 17,
}
"""The same of encoders, detectors and exports of this kit; names that mean something else in some host."""
ALL_BOUNDS = BOUNDS | MORE_BOUNDS
PARTS = ("vision_config", "text_config")
DEEPEST = 8


def check_config(config: Mapping[str, Any], source: str) -> None:
    """Refuse sizes that no model has, and values of another type, wherever they stand in a config.

    Raises:
        ValueError: one is; the message names the field.
    """
    for name in PARTS:
        if name in config and not isinstance(config[name], Mapping):
            raise ValueError(_wrong(source, name, "an object", config[name]))
    for path, name, value in _fields(config):
        if isinstance(value, Mapping):
            raise ValueError(
                f"{source}: config.json: {path}{name}. lies more than {DEEPEST} levels deep; is it a model's config?"
            )
        if name in BOUNDS and value is not None:
            values = value if isinstance(value, list) else [value]
            least = 0 if BOUNDS[name] == MOST_LAYERS else 1  # a tower of one map has no layer before it
            if not all(type(one) is int and least <= one <= BOUNDS[name] for one in values) or len(values) > 1_000:
                told = f"a whole number from {least} to {BOUNDS[name]:,}"
                raise ValueError(_wrong(source, f"{path}{name}", told, value))


def check_sizes(config: Mapping[str, Any], source: str) -> None:
    """Refuse sizes that no model has, in the config of a model of any kind, before the library builds it; what has
    another type than it should is left to the library.

    Raises:
        ValueError: one is; the message names the field.
    """
    for path, name, value in _fields(config):
        if name in ALL_BOUNDS and _largest(value) > ALL_BOUNDS[name]:
            raise ValueError(_wrong(source, f"{path}{name}", f"at most {ALL_BOUNDS[name]:,}", value))


def _fields(config: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """(path of the objects around it, name, value) of each field; objects below `DEEPEST` levels are values."""
    for name, value in config.items():
        if isinstance(value, Mapping) and depth < DEEPEST:
            yield from _fields(value, f"{path}{name}.", depth + 1)
        else:
            yield path, name, value


def check_picture_sizes(config: Mapping[str, Any], source: str) -> None:
    """Refuse a square that no tower reads, in the config of a tower's image processor: it would be made in memory.

    Raises:
        ValueError: one is; the message names the field.
    """
    most = BOUNDS["image_size"]
    for name in ("size", "crop_size", "pad_size"):
        value = config.get(name)
        for key, one in value.items() if isinstance(value, Mapping) else (("", value),):
            if _largest(one) > most:
                raise ValueError(
                    f"{source}: expected {f'{name}.{key}'.rstrip('.')} to be at most {most:,} pixels, got {one!r:.60}; "
                    "copy the encoder's own file again"
                )


def _largest(value: Any) -> float:
    """The largest number of a field, or of its list; 0 where there is none."""
    values = value if isinstance(value, list) else [value]
    return max((one for one in values if isinstance(one, int | float)), default=0)


def _wrong(source: str, field: str, expected: str, got: object) -> str:
    return f"{source}: config.json: expected {field} to be {expected}, got {got!r:.60}; copy the model's own file again"
