"""Models whose weights nothing can be put beside: quantised ones and adapters, refused with the way on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

QUANTISED = (
    *("quantization_config", "compression_config", "quantization", "quant_config", "quantize_config"),
    *("load_in_8bit", "load_in_4bit", "_load_in_8bit", "_load_in_4bit"),
)
"""Fields of a config, at any depth, by which quantised weights are known (`quantization` is MLX's)."""
DTYPES = ("dtype", "torch_dtype")
NARROW = ("float8", "fp8", "int8", "int4", "float4", "nf4")
"""How a type of fewer than 16 bits is written in these fields."""
QUANTISED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")
"""Files beside a config by which older and other quantisers say the same."""
QUANTISED_KEYS = (
    *(".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_map", ".W_q"),
    *(".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"),
)
"""How keys of quantised weights end, in files that say nothing of it in their config."""
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
DEEPEST = 8


def refuse_quantised(config: Mapping[str, Any], source: str) -> None:
    """Refuse weights that are packed for one library.

    Args:
        config: content of a config.json.
        source: the folder, for messages and for what lies beside the config.

    Raises:
        ValueError: they are; the message names where it is said, and the way on.
    """
    sign = next(_quantised(config), None)
    if sign is None:
        beside = next((name for name in QUANTISED_FILES if (Path(source) / name).is_file()), None)
        sign = None if beside is None else (beside, "there")
    if sign is not None:
        raise ValueError(_packed(source, f"{sign[0]}: {sign[1]}"))


def refuse_packed_keys(keys: Iterable[str], source: str) -> None:
    """Refuse files whose keys are those of packed weights, whatever their config says.

    Raises:
        ValueError: they are.
    """
    found = next((key for key in keys if key.endswith(QUANTISED_KEYS)), None)
    if found is not None:
        raise ValueError(_packed(source, f"it holds {found}"))


def _packed(source: str, where: str) -> str:
    return (
        f"{source}: its weights are quantised ({where}), packed for one library, and no tower or projector goes in "
        "beside them; pass the unquantised folder that it was made from (its model card names it), and quantise the "
        "result"
    )


def _quantised(config: Mapping[str, Any] | list[Any], depth: int = 0) -> Iterator[tuple[object, str]]:
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        if name in DTYPES and isinstance(value, str) and any(one in value.lower() for one in NARROW):
            yield name, value[:40]
        elif name in QUANTISED and value:
            method = value.get("quant_method", value.get("quant_algo")) if isinstance(value, Mapping) else None
            yield name, f"{method or 'given'!s:.40}"
        elif isinstance(value, Mapping | list) and depth < DEEPEST:
            yield from _quantised(value, depth + 1)


def refuse_adapters(folder: Path, what: str) -> None:
    """Refuse a folder of adapters: transformers would look for their base by the path that they name.

    Raises:
        ValueError: adapters lie in it.
    """
    found = next((name for name in ADAPTERS if (folder / name).is_file()), None)
    if found is not None:
        raise ValueError(
            f"{what}: {folder} holds adapters ({found}), not yet merged into the model that they belong to; merge "
            "them first: load the base, `peft.PeftModel.from_pretrained(base, FOLDER).merge_and_unload()"
            ".save_pretrained(NEW)`, or here: `result.form=merged` when tuning; then pass NEW"
        )
