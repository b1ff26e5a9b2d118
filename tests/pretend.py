"""An accelerator that is none: it computes on the CPU and refuses what an accelerator refuses.

Tensors on the device `pretend` wrap one of the CPU. An operation that meets a tensor of the CPU among them is an error,
as on CUDA, with CUDA's exceptions. It shows that tensors lie where they have to; it says nothing of speed, precision or
kernels. Torch has such a device for good once it has it, so that tests ask a process that is started for it.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
_ATEN = torch.ops.aten
_MIXED = {_ATEN.copy_.default, _ATEN._to_copy.default, _ATEN.index.Tensor, _ATEN.index_put_.default}
"""What takes tensors of the CPU as well: copies, and places to read and write at."""


class _Backend:
    """What torch asks a device's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class Pretended(torch.Tensor):
    """A tensor of the device; `held` is the one of the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=torch.device(NAME, 0), **shape)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"{NAME}({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, Counter())

    def tolist(self):
        return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert a tensor of {NAME} to numpy; use Tensor.cpu()")

    __array__ = numpy


class _Everything(TorchDispatchMode):
    """Sees what makes tensors out of nothing, and counts what runs on the device."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.seen)


def _run(func, args, kwargs, seen: Counter[str]):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    strangers = [tensor for tensor in tensors if tensor.dim() and not isinstance(tensor, Pretended)]
    if ours and strangers and func not in _MIXED:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in strangers)
        raise RuntimeError(f"{func}: expected all tensors on {NAME}, found some of the CPU ({shapes})")
    device = kwargs.get("device")
    here = bool(ours) if device is None else torch.device(device).type == NAME
    if ours:
        seen[str(func)] += 1
    found = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    return tree_map(lambda one: _outside(one, ours), found) if here else found


def _inside(one):
    if isinstance(one, torch.device):
        return torch.device("cpu")
    return one.held if isinstance(one, Pretended) else one


def _outside(one, ours: list[Pretended]):
    if not isinstance(one, torch.Tensor):
        return one
    for tensor in ours:
        if tensor.held is one:  # done in place
            return tensor
    return Pretended(one)


class _NoGrad(torch.no_grad):
    """In place of inference mode, which such tensors cannot enter."""

    def __new__(cls, work=None):
        return torch.no_grad()(work) if callable(work) else super().__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()


@contextmanager
def pretend_device() -> Iterator[Counter[str]]:
    """The device is there; gives how often each operation ran on it."""
    _setup_privateuseone_for_python_backend(NAME, _Backend())
    torch.inference_mode = _NoGrad
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is a copy then, which can be seen
    seen = Counter[str]()
    with _Everything(seen):
        yield seen


def serve(connection: Connection) -> None:
    """Does what it is asked, (function, arguments) after (function, arguments), until it is sent None."""
    torch.set_num_threads(1)
    with pretend_device() as seen:
        while (asked := connection.recv()) is not None:
            work, arguments = asked
            seen.clear()
            try:
                answer = work(*arguments), dict(seen)
            except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError, SystemExit):
                answer = traceback.format_exc(), None
            connection.send(answer)


def refused() -> list[str]:
    """What the device says to tensors of the CPU, and what it does where an accelerator says nothing."""
    ones, told = torch.ones(3, device=NAME), []
    for wrong in (lambda: ones + torch.ones(3), lambda: torch.cat([ones, torch.ones(1)]), lambda: ones.numpy()):
        try:
            told.append(f"nothing: {wrong()}")
        except (RuntimeError, TypeError) as error:
            told.append(str(error))
    return [*told, str((ones * torch.tensor(2.0))[torch.tensor([0])].tolist())]


def train(call: list[str]) -> int:
    """A training run there."""
    from cloc import device, pretrain

    device.find_device = lambda asked, field: NAME
    return pretrain.main(call)


def detect(folder: str, image: Any, names: list[str]) -> dict[str, list]:
    """What an export finds on an image."""
    from transformers import AutoProcessor

    import cloc

    model = cloc.ClocForObjectDetection.from_pretrained(folder).eval().to(NAME)
    (found,) = model.detect([image], names, AutoProcessor.from_pretrained(folder), limit=7, threshold=0.0)
    return {key: np.asarray(found[key]).tolist() for key in ("scores", "boxes")}


def read(folder: str, asked: dict[str, torch.Tensor], where: str = NAME) -> list[list]:
    """Region vectors, text vectors and boxes of phrases of an export."""
    from transformers import AutoModel

    import cloc  # noqa: F401  registers the classes

    model, asked = AutoModel.from_pretrained(folder).eval().to(where), {k: v.to(where) for k, v in asked.items()}
    with torch.no_grad():
        phrases = model.get_text_features(asked["input_ids"], asked["attention_mask"])
        regions = model.get_region_features(asked["pixel_values"], asked["boxes"])
        return [one.tolist() for one in (phrases, regions, model.ground(asked["pixel_values"], phrases[None]))]
