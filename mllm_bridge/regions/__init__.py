"""Regions inside the MLLM (the paper's CLOC*): `<region>` in a prompt stands for a box, a point or a mask.

Its embedding comes from the export's Prompter, from the tower pass that the host makes anyway. The module lies in
`regions/` of the host's folder; without this package the folder still loads, and answers about whole images.
"""

from mllm_bridge.regions.host import RegionHost, add_region_token
from mllm_bridge.regions.module import RegionModule, make_region_module
from mllm_bridge.regions.prompts import find_box, map_to_canvas

__all__ = ["RegionHost", "RegionModule", "add_region_token", "find_box", "make_region_module", "map_to_canvas"]
