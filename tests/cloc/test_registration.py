"""transformers knows our classes in whatever order both are imported, and importing ours alone costs neither."""

import subprocess
import sys

import pytest

KNOWN = """
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForZeroShotObjectDetection, AutoProcessor
from transformers import dynamic_module_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from cloc import ClocConfig
for mapping in (AutoModel._model_mapping, AutoModelForZeroShotObjectDetection._model_mapping, PROCESSOR_MAPPING,
                IMAGE_PROCESSOR_MAPPING):
    assert ClocConfig in mapping, mapping
assert CONFIG_MAPPING["cloc"] is ClocConfig
assert dynamic_module_utils.TIME_OUT_REMOTE_CODE == 0
"""
ORDERS = ("import cloc",)
MORE = (
    "from transformers import AutoModel; import cloc",
    "import cloc.models.detection_processing",
    "from cloc import ClocModel",
    "import cloc; from transformers import AutoTokenizer",
    "import cloc; from transformers import AutoImageProcessor",
    "import cloc; from transformers import AutoProcessor",
    "import cloc.structures.outputs",
    "import cloc.towers.external",
    "import mllm_bridge.encoder",
    "import open_clip; import cloc.towers.tower",
)


def run_python(code: str) -> None:
    """A process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("first", [*ORDERS, *(pytest.param(order, marks=pytest.mark.slow) for order in MORE)])
def test_the_auto_classes_know_ours(first):
    run_python(first + KNOWN)


@pytest.mark.parametrize("module", ["cloc.boxes", "cloc.config", "cloc.formats", "cloc.convert"])
def test_what_needs_no_torch_loads_none(module):
    loaded = "assert not {'torch', 'transformers'} & set(sys.modules), 'loaded'"
    run_python(f"import sys, {module}; {loaded}")
