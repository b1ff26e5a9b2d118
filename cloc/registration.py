"""What transformers learns of ours, without loading it: classes are registered when the Auto classes are first loaded.

Where transformers' module is there already, that happens at once, else right after it; but never while one of ours is
half loaded: then when the outermost import is done. So `import cloc` costs neither transformers nor torch, and both may
come in any order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import ClassVar

from cloc.moved import MovedFinder, add_old_names

AUTO = "transformers.models.auto"


def install(following: Mapping[str, Callable[[], None]] | None = None) -> None:
    """Call functions after modules of transformers are loaded, from now on.

    Args:
        following: by module of transformers, what is called after it; at once where it is there (default: what
            registers this kit's classes).
    """
    following = FOLLOWING if following is None else following
    for name, call in following.items():
        _FINDER.following.setdefault(name, []).append(call)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
        sys.meta_path.append(MovedFinder())
    _FINDER.pending.extend(call for name, call in following.items() if name in sys.modules)
    _FINDER.settle()


class _Finder(MetaPathFinder, threading.local):
    """Finds modules as Python does, and calls what follows them when no import of this thread is under way."""

    following: ClassVar[dict[str, list[Callable[[], None]]]] = {}
    pending: ClassVar[list[Callable[[], None]]] = []

    def __init__(self) -> None:
        self.depth = 0

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """None for every module but those that are followed, and this kit's own."""
        ours = name.startswith(("cloc.", "mllm_bridge."))
        if name not in self.following and not ours:
            return None
        later = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next((found for finder in later if (found := finder.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if ours:
                add_old_names(module)
            self.pending.extend(self.following.get(name, ()))
            self.settle()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def settle(self) -> None:
        """Call what is pending, unless an import is under way."""
        while self.pending and self.depth == 0:
            self.pending.pop(0)()


_FINDER = _Finder()


def _register_configs() -> None:
    from transformers import AutoConfig

    from cloc.models.configuration import ClocConfig, ClocVisionConfig

    AutoConfig.register("cloc", ClocConfig, exist_ok=True)
    AutoConfig.register("cloc_vision_model", ClocVisionConfig, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForZeroShotImageClassification, AutoModelForZeroShotObjectDetection

    from cloc.models.configuration import ClocConfig, ClocVisionConfig
    from cloc.models.detection import ClocForObjectDetection
    from cloc.models.modeling import ClocForZeroShotImageClassification, ClocModel, ClocVisionModel

    AutoModel.register(ClocConfig, ClocModel, exist_ok=True)
    AutoModel.register(ClocVisionConfig, ClocVisionModel, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(ClocConfig, ClocForZeroShotImageClassification, exist_ok=True)
    AutoModelForZeroShotObjectDetection.register(ClocConfig, ClocForObjectDetection, exist_ok=True)


def _register_image_processors() -> None:
    from transformers import AutoImageProcessor

    from cloc.models.configuration import ClocConfig
    from cloc.models.detection_processing import ClocDetectionImageProcessor

    classes: dict[str, type] = {"torchvision": ClocDetectionImageProcessor}
    AutoImageProcessor.register(ClocConfig, image_processor_classes=classes, exist_ok=True)


def _register_processors() -> None:
    from transformers import AutoProcessor

    from cloc.models.configuration import ClocConfig
    from cloc.models.processing import ClocProcessor

    AutoProcessor.register(ClocConfig, ClocProcessor, exist_ok=True)


def _never_ask() -> None:
    """Transformers refuses where it would ask whether to run a folder's own code."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


FOLLOWING = {
    f"{AUTO}.configuration_auto": _register_configs,
    f"{AUTO}.modeling_auto": _register_models,
    f"{AUTO}.image_processing_auto": _register_image_processors,
    f"{AUTO}.processing_auto": _register_processors,
    "transformers.dynamic_module_utils": _never_ask,
}
"""By module of transformers: what is done when it is loaded."""
