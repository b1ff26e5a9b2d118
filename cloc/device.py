"""Where tensors lie: which device there is, and that equal runs give equal bits on it."""

from __future__ import annotations

import torch


def find_device(asked: str = "auto", field: str = "--device") -> str:
    """The name of a device that can be used here.

    Args:
        asked: `auto` for `cuda` where there is one, else `cpu`; or a name that torch knows.
        field: how the user says it, for the message.

    Raises:
        ValueError: torch knows no such device, or there is none here.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
        if device.type != "cuda":
            torch.empty(0, device=device)
        elif (device.index or 0) >= torch.cuda.device_count():  # asked for so, no memory is taken on the first card
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} CUDA device(s)")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{field}: {asked!r} cannot be used here ({why}); use cpu, or leave it out") from error
    return asked


def make_deterministic(device: str) -> None:
    """Ask torch for kernels that give equal bits; `CUBLAS_WORKSPACE_CONFIG` has to be set before torch starts.

    Torch counts a few CUDA kernels as not deterministic: torchvision's deformable convolution backwards, the largest
    and smallest of scattered values, and before torch 2.15 positions interpolated by bicubic. Training a detector
    needs them, so on anything but a CPU they warn and run; training CLOC at the tower's own size uses none.

    Args:
        device: `cpu` or `cuda`.
    """
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Else every torch.empty is filled: DeepSpeed's 2 GiB bucket, each step. Nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of it
