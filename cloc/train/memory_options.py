"""Switches for the time and memory of a training step, not for its figures: attention, recomputation, compile."""

from __future__ import annotations

from importlib.util import find_spec

from transformers import PreTrainedModel

from cloc.models.modeling import ClocModel

ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


def set_attention(model: ClocModel, kind: str, bf16: bool) -> None:
    """Choose how both towers attend; the Prompter has a form of its own.

    Args:
        model: a `ClocModel` on its device.
        kind: `sdpa`, `eager` or `flash_attention_2`.
        bf16: whether the run computes in bf16, without which flash attention does not start.

    Raises:
        ValueError: flash attention has no package, no accelerator or no bf16, or a tower does not know the kind.
    """
    if kind == "flash_attention_2":
        if find_spec("flash_attn") is None:
            raise ValueError("model.attention flash_attention_2: needs the package flash-attn (pip install flash-attn)")
        if not (bf16 and next(model.parameters()).is_cuda):
            raise ValueError(
                "model.attention flash_attention_2: runs on an accelerator in bf16 only; "
                "add run.precision=bf16, or use model.attention=sdpa, which takes the same kernels where it can"
            )
    for name, tower in (("vision", model.vision.tower), ("text", model.text)):
        if not isinstance(tower, PreTrainedModel):
            continue
        try:
            tower.set_attn_implementation(kind)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"model.attention {kind}: the {name} tower does not know it ({reason})") from error


def checkpoint_activations(model: ClocModel) -> None:
    """Keep only the input of every layer of the towers and compute the rest again in the backward pass.

    Raises:
        ValueError: a tower has no such switch.
    """
    for name, tower in (("vision", model.vision.tower), ("text", model.text)):
        try:
            tower.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ValueError(
                f"train.activation_checkpointing: the {name} tower ({type(tower).__name__}) cannot recompute; "
                f"switch it off ({error})"
            ) from error


def compile_towers(model: ClocModel) -> None:
    """`torch.compile` for both towers, which hold nearly all the work; the names of their weights stay.

    The Prompter is left as it is: compiled by inductor of torch 2.15 on the CPU, its gradients were wrong.
    """
    for tower in (model.vision.tower, model.text):
        tower.compile()
