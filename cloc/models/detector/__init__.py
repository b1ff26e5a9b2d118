"""The detector's plain modules: pyramid, head, deformable module, anchors, and what turns scores into boxes."""
