"""The embedded world. Scenes composed of sprites, with boxes, names, captions and referring expressions.

In come a `WorldSpec` and a scene's number, out come `Scene`s, shards for training (regions, detection, grounding,
pairs), COCO, LVIS and RefCOCO files for evaluation, and conversations in LLaVA's layout. It shows that the methods
work; it says nothing about real photographs.
"""

from cloc.scenes.build import WORLD_CARD, ensure_scenes, read_world
from cloc.scenes.captions import SceneExpression
from cloc.scenes.categories import SceneCategory
from cloc.scenes.render import Scene, SceneObject, render_scene
from cloc.scenes.world import PRESETS, SPLITS, WorldSpec, list_categories, make_preset

__all__ = [
    "PRESETS",
    "SPLITS",
    "WORLD_CARD",
    "Scene",
    "SceneCategory",
    "SceneExpression",
    "SceneObject",
    "WorldSpec",
    "ensure_scenes",
    "list_categories",
    "make_preset",
    "read_world",
    "render_scene",
]
